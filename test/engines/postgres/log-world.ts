import { hash } from 'node:crypto'
import type { TestContext } from 'node:test'
import type { AppendGroup, AppendReceipt, NewMessage, StoredMessage, TopicConfig } from '../../../src/engine.ts'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { Turns } from '../../../src/engines/postgres/delivery/turns.ts'
import { Appender } from '../../../src/engines/postgres/log/append.ts'
import type { Stored } from '../../../src/engines/postgres/log/append-work.ts'
import { BatchReader } from '../../../src/engines/postgres/log/batches.ts'
import { Delayed } from '../../../src/engines/postgres/log/delayed.ts'
import { endsOf } from '../../../src/engines/postgres/log/positions.ts'
import { Retention } from '../../../src/engines/postgres/log/retention.ts'
import { Topics } from '../../../src/engines/postgres/log/topics.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { newSchema, type TestSpace } from '../../servers/shared-postgres.ts'

export const TOPIC = 'orders'
export const SHARED = JSON.stringify({ source: 'test', type: 'order' })

/** The log of one process. */
export class LogWorld {
  readonly clock = new VirtualClock()
  readonly database: Database
  readonly batches = new BatchReader()
  readonly turns: Turns
  readonly topics: Topics
  readonly appender: Appender
  readonly delayed: Delayed
  readonly retention: Retention
  readonly stored: Stored[] = []

  constructor(database: Database) {
    this.database = database
    this.turns = new Turns(database, this.clock)
    this.topics = new Topics({ database, turns: this.turns, batches: this.batches })
    this.appender = new Appender({ database, topics: this.topics, onStored: (stored) => void this.stored.push(stored) })
    this.delayed = new Delayed(database)
    this.retention = new Retention(database)
  }

  async ensure(config: Partial<TopicConfig> = {}): Promise<number> {
    const retention = { maxAgeMs: 10_000, dropUnread: false }
    const standard = { topic: TOPIC, kind: 'topic', partitions: 1, deduplicationWindowMs: 1_000, retention } as const
    await this.topics.ensure({ ...standard, ...config })
    return (await this.topics.find(config.topic ?? TOPIC)).topicId
  }

  subscribe(subscription = 'mail', ordered = false, topic = TOPIC): Promise<void> {
    return this.topics.ensureSubscription({ topic, subscription, ordered, maxCrashes: 3, maxParked: 100 })
  }

  /** Stores one group. Rejects with what it is refused for. */
  async publish(messages: readonly NewMessage[], topic = TOPIC): Promise<readonly AppendReceipt[]> {
    const [outcome] = await this.appender.append([groupOf(messages, topic)], {}, this.clock.now())
    if ('refused' in outcome!) throw outcome.refused
    return outcome!.receipts
  }

  message(data: unknown, options: Partial<NewMessage> = {}): NewMessage {
    const timeMs = options.timeMs ?? this.clock.now()
    const id = options.id ?? `id-${String(data)}`
    return { ...options, id, timeMs, json: JSON.stringify({ id, time: new Date(timeMs).toISOString(), data }) }
  }

  /** The data of all that is kept of a partition, by a process that has read nothing yet. */
  async read(topicId: number, partition = 0, from = 0): Promise<unknown[]> {
    const end = (await endsOf(this.database, [topicId])).find((each) => each.partition === partition)
    const range = { topicId, partition, from, to: end?.nextOffset ?? 0 }
    const { messages } = await new BatchReader().read(this.database, [range])
    return dataOf(messages[0]!)
  }

  /** The first and the next offset of a partition. */
  async ends(topicId: number, partition = 0): Promise<readonly number[]> {
    const found = (await endsOf(this.database, [topicId])).find((each) => each.partition === partition)
    return found ? [found.firstOffset, found.nextOffset] : []
  }

  /** Has a subscription go to an offset, with nothing left behind. */
  async settleUpTo(offset: number, subscription = 'mail', partition = 0): Promise<void> {
    const key = await this.topics.findSubscription({ topic: TOPIC, subscription })
    await this.turns.run(key, async ({ state }) => void state.cursors.set(partition, offset))
  }

  query<Row>(text: string, ...values: readonly unknown[]): Promise<Row[]> {
    return this.database.rows<Row>({ name: `test_${hash('md5', text)}`, text }, ...values)
  }
}

export function groupOf(messages: readonly NewMessage[], topic = TOPIC, shared = SHARED): AppendGroup {
  return { topic, shared, messages }
}

export function dataOf(messages: readonly StoredMessage[]): unknown[] {
  return messages.map(({ event }) => event.data)
}

/** Several processes on one store. */
export async function openWorlds(context: TestContext, processes: number): Promise<LogWorld[]> {
  const space = await newSchema()
  const databases = Array.from({ length: processes }, () => new Database(parsePostgresAddress(addressOf(space))))
  context.after(async () => {
    await Promise.all(databases.map((database) => database.close()))
    await space.drop()
  })
  await migrate(databases[0]!)
  return databases.map((database) => new LogWorld(database))
}

export async function openWorld(context: TestContext): Promise<LogWorld> {
  return (await openWorlds(context, 1))[0]!
}

function addressOf({ url, name }: TestSpace): string {
  const address = new URL(url)
  address.searchParams.delete('options')
  address.searchParams.set('schema', name)
  return address.href
}
