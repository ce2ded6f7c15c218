import { hash } from 'node:crypto'
import type { TestContext } from 'node:test'
import type { Failure, StoredEvent, StoredMessage } from '../../../src/engine.ts'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import type { Queryable, Statement, Transaction } from '../../../src/engines/postgres/database/statement.ts'
import { DeliveryState } from '../../../src/engines/postgres/delivery/delivery-state.ts'
import type { Lease } from '../../../src/engines/postgres/delivery/lease.ts'
import { type SubscriptionKey, type Turn, Turns } from '../../../src/engines/postgres/delivery/turns.ts'
import { Chains } from '../../../src/engines/postgres/order/chains.ts'
import { DeadLetters } from '../../../src/engines/postgres/settlement/dead-letters.ts'
import { SetAside } from '../../../src/engines/postgres/settlement/set-aside.ts'
import { Settling } from '../../../src/engines/postgres/settlement/settling.ts'
import { Steps } from '../../../src/engines/postgres/settlement/steps.ts'
import { CREATE_TABLES } from '../../../src/engines/postgres/sql/schema.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { newSchema } from '../../servers/shared-postgres.ts'

export const SOURCE = 'session/1'
export const PARTITIONS = 2
const TOPIC_ID = 1

interface Range {
  readonly partition: number
  readonly from: number
  readonly to: number
}

/** A subscription on a real server whose turns a test carries out by hand. Its log is made up. */
export class SettlementWorld {
  readonly clock = new VirtualClock()
  readonly chains = new Chains()
  readonly steps = new Steps()
  readonly setAside = new SetAside()
  readonly deadLetters = new DeadLetters(this.chains, this.steps)
  readonly settling = new Settling({ batches: { read: readLog }, chains: this.chains, steps: this.steps })
  readonly database: Database
  readonly key: SubscriptionKey
  /** Of the last turn. */
  statements: string[] = []
  readonly #turns: Turns

  constructor(database: Database, subscriptionId: number) {
    this.database = database
    this.key = { topic: 'topic', subscription: 'subscription', subscriptionId }
    this.#turns = new Turns(database, this.clock)
  }

  /** Carries work out in a turn, and notes its statements. */
  turn<Value>(work: (turn: Turn) => Promise<Value>): Promise<Value> {
    return this.#turns.run(this.key, (turn) => {
      this.statements = []
      return work({ ...turn, rows: this.#noting(turn.rows) })
    })
  }

  /** Leases new messages: `[from, to)` of a partition. */
  leaseFresh(partition: number, from: number, to: number, source = SOURCE): Promise<number> {
    return this.turn(async ({ state }) => {
      state.cursors.set(partition, to)
      return state.lease({ source, partition, open: [from, to], crashes: 0, isolated: false }).id
    })
  }

  /** Leases all that was set aside and is due, one message each. */
  leaseDue(isolated = false): Promise<Lease[]> {
    return this.turn(async (turn) => {
      const due = await this.setAside.due(turn, 1_000, [0, 1])
      return due.map(({ partition, offset, rowId, crashes }) =>
        turn.state.lease({ source: SOURCE, partition, open: [offset, offset + 1], crashes, isolated, rowId }),
      )
    })
  }

  state(): Promise<DeliveryState> {
    return this.turn(async ({ state }) => state)
  }

  /** What a query of the test's own finds. */
  async query<Row>(text: string, ...values: readonly unknown[]): Promise<Row[]> {
    return this.database.rows<Row>({ name: `test_${hash('md5', text)}`, text }, ...values)
  }

  #noting(rows: Transaction): Transaction {
    const note = ({ name }: Statement) => void this.statements.push(name)
    return {
      rows: (statement, ...values) => {
        note(statement)
        return rows.rows(statement, ...values)
      },
      run: (statement, ...values) => {
        note(statement)
        return rows.run(statement, ...values)
      },
      send: (statement, ...values) => {
        note(statement)
        rows.send(statement, ...values)
      },
    }
  }
}

export interface WorldOptions {
  readonly ordered?: boolean
  readonly maxCrashes?: number
}

export async function openWorld(context: TestContext, options: WorldOptions = {}): Promise<SettlementWorld> {
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
  await client.query(database.resolve(INSERT_TOPIC), [PARTITIONS])
  await client.query(database.resolve(INSERT_SUBSCRIPTION), [options.ordered ?? false, options.maxCrashes ?? 3])
  const state = DeliveryState.startingAt(new Map(Array.from({ length: PARTITIONS }, (_, each) => [each, 0])))
  await client.query(database.resolve(INSERT_STATE), [state.toText()])
  await client.end()
  return new SettlementWorld(database, 1)
}

const INSERT_TOPIC = `
INSERT INTO @.topics (topic, kind, partitions, deduplication_window_ms, max_age_ms, drop_unread)
VALUES ('topic', 'topic', $1, 0, 0, false)`
const INSERT_SUBSCRIPTION = `
INSERT INTO @.subscriptions (topic_id, subscription, ordered, max_crashes, max_parked)
VALUES (${TOPIC_ID}, 'subscription', $1, $2, 1000)`
const INSERT_STATE = `INSERT INTO @.states (subscription_id, version, state) VALUES (1, 1, $1)`

export function eventAt(partition: number, offset: number): StoredEvent {
  const time = '2026-01-01T00:00:00.000Z'
  return { specversion: '1.0', id: `${partition}/${offset}`, source: 'test', type: 'test', time, data: offset }
}

/** Of a damaged message there is nothing. */
export const DAMAGED_OFFSET = 13_000

async function readLog(_: Queryable, ranges: readonly Range[]) {
  const messages = ranges.map(({ partition, from, to }) => {
    const offsets = Array.from({ length: to - from }, (_, place) => from + place)
    return offsets
      .filter((offset) => offset !== DAMAGED_OFFSET)
      .map((offset): StoredMessage => ({ offset, event: eventAt(partition, offset) }))
  })
  return { messages, damaged: [] }
}

export function failure(attempt: number): Failure {
  return { attempt, atMs: 0, name: 'Error', message: 'it is "broken" \\ \u0000' }
}
