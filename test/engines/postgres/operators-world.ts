import { hash } from 'node:crypto'
import type { TestContext } from 'node:test'
import { batchChecksum } from '../../../src/engines/checksum.ts'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { type Turn, Turns } from '../../../src/engines/postgres/delivery/turns.ts'
import { Breakers } from '../../../src/engines/postgres/limits/breakers.ts'
import { BatchReader } from '../../../src/engines/postgres/log/batches.ts'
import { Topics } from '../../../src/engines/postgres/log/topics.ts'
import { PostgresAdmin } from '../../../src/engines/postgres/operators/admin.ts'
import { Chains } from '../../../src/engines/postgres/order/chains.ts'
import { DeadLetters } from '../../../src/engines/postgres/settlement/dead-letters.ts'
import { SetAside } from '../../../src/engines/postgres/settlement/set-aside.ts'
import { Settling } from '../../../src/engines/postgres/settlement/settling.ts'
import { Steps } from '../../../src/engines/postgres/settlement/steps.ts'
import { CREATE_TABLES } from '../../../src/engines/postgres/sql/schema.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { newSchema } from '../../servers/shared-postgres.ts'

export const TOPIC = 'events'
export const HERE = { topic: TOPIC, subscription: 'mail' }
export const SOURCE = 'session/1'

export interface TestMessage {
  readonly id: string
  readonly data?: unknown
  readonly timeMs?: number
}

/** What operators have to do with on a real server: batches are stored by hand, and messages leased by hand. */
export class OperatorsWorld {
  readonly clock = new VirtualClock()
  readonly database: Database
  readonly turns: Turns
  readonly topics: Topics
  readonly settling: Settling
  readonly steps = new Steps()
  readonly setAside = new SetAside()
  readonly admin: PostgresAdmin
  /** Whom the admin calls have woken: `t1`, `s1`. */
  woken: string[] = []
  readonly #nextOffsets = new Map<string, number>()

  constructor(database: Database) {
    this.database = database
    this.turns = new Turns(database, this.clock)
    const batches = new BatchReader()
    const chains = new Chains()
    this.topics = new Topics({ database, turns: this.turns, batches })
    this.settling = new Settling({ batches, chains, steps: this.steps })
    this.admin = new PostgresAdmin({
      database,
      clock: this.clock,
      turns: this.turns,
      topics: this.topics,
      batches,
      chains,
      settling: this.settling,
      steps: this.steps,
      setAside: this.setAside,
      deadLetters: new DeadLetters(chains, this.steps),
      breakers: new Breakers(database),
      begin() {},
      wake: (topicId) => void this.woken.push(`t${topicId}`),
      wakeSubscription: (subscriptionId) => void this.woken.push(`s${subscriptionId}`),
      applyRetention: async () => 0,
    })
  }

  async topic(partitions = 1, kind: 'topic' | 'queue' = 'topic'): Promise<void> {
    const retention = { maxAgeMs: 1_000_000, dropUnread: false }
    await this.topics.ensure({ topic: TOPIC, kind, partitions, deduplicationWindowMs: 60_000, retention })
  }

  async subscription(subscription = HERE.subscription, ordered = false): Promise<void> {
    const config = { topic: TOPIC, subscription, ordered, maxCrashes: 3, maxParked: 1_000 }
    await this.topics.ensureSubscription({ ...config, start: { at: 'earliest' } })
  }

  /** Stores messages as one batch. */
  async store(messages: readonly TestMessage[], partition = 0): Promise<void> {
    const { topicId } = await this.topics.find(TOPIC)
    const name = `${topicId}/${partition}`
    const baseOffset = this.#nextOffsets.get(name) ?? 0
    this.#nextOffsets.set(name, baseOffset + messages.length)
    const times = messages.map(({ timeMs = this.clock.now() }) => timeMs)
    const own = messages.map(({ id, data = id }, place) => ({ id, time: new Date(times[place]!).toISOString(), data }))
    const batch = { topicId, partition, baseOffset, count: messages.length }
    const texts = { shared: JSON.stringify({ source: 'test', type: TOPIC }), data: JSON.stringify(own) }
    const values = [...Object.values(batch), Math.min(...times), Math.max(...times), Buffer.byteLength(texts.data)]
    await this.query(STORE, ...values, batchChecksum({ ...batch, ...texts }), texts.shared, texts.data)
  }

  async turn<Value>(work: (turn: Turn) => Promise<Value>, ref = HERE): Promise<Value> {
    return this.turns.run(await this.topics.findSubscription(ref), work)
  }

  /** Leases new messages. Returns the lease. */
  lease(to: number, partition = 0, ref = HERE): Promise<number> {
    return this.turn(async ({ state }) => {
      if (!state.sources.includes(SOURCE)) state.sources.push(SOURCE)
      const from = state.cursors.get(partition) ?? 0
      state.cursors.set(partition, to)
      return state.lease({ source: SOURCE, partition, open: [from, to], crashes: 0, isolated: false }).id
    }, ref)
  }

  async query<Row>(text: string, ...values: readonly unknown[]): Promise<Row[]> {
    return this.database.rows<Row>({ name: `test_${hash('md5', text)}`, text }, ...values)
  }
}

const STORE = `
INSERT INTO @.batches (topic_id, partition, base_offset, count, first_time_ms, last_time_ms, bytes, checksum, shared, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

export async function openWorld(context: TestContext): Promise<OperatorsWorld> {
  const { name, url, drop } = await newSchema()
  const address = new URL(url)
  address.searchParams.delete('options')
  address.searchParams.set('schema', name)
  const database = new Database(parsePostgresAddress(address.href))
  context.after(async () => {
    await database.close()
    await drop()
  })
  const client = database.newClient()
  await client.connect()
  await client.query(database.resolve(CREATE_TABLES))
  await client.end()
  return new OperatorsWorld(database)
}
