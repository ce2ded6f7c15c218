import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import pg from 'pg'
import type { AppendGroup, TopicConfig } from '../../../src/engine.ts'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { Listener } from '../../../src/engines/postgres/database/listener.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { Turns } from '../../../src/engines/postgres/delivery/turns.ts'
import { Appender } from '../../../src/engines/postgres/log/append.ts'
import { BatchReader } from '../../../src/engines/postgres/log/batches.ts'
import { Topics } from '../../../src/engines/postgres/log/topics.ts'
import { OUTBOX_NOTICE, Outbox } from '../../../src/engines/postgres/outbox/outbox.ts'
import { Relay } from '../../../src/engines/postgres/outbox/relay.ts'
import { type Clock, type Logger, silentLogger, systemClock } from '../../../src/environment/index.ts'
import { newGroup, newMessage, type PublishOptions, TOPIC } from '../../conformance/messages.ts'
import { newSchema, type TestSpace } from '../../servers/shared-postgres.ts'

const EVENTUALLY_MS = 10_000
const WINDOW_MS = 60_000

export const topicConfig: TopicConfig = {
  topic: TOPIC,
  kind: 'topic',
  partitions: 1,
  deduplicationWindowMs: WINDOW_MS,
  retention: { maxAgeMs: 3_600_000, dropUnread: false },
}

export interface StageOptions {
  readonly clock?: Clock
  readonly logger?: Logger
  readonly query?: string
  /** Whether the relay listens, and so relays by itself. Default true. */
  readonly relays?: boolean
}

/** The outbox, its relay and the log behind it, as one process has them, on a real server. */
export class OutboxStage {
  readonly space: TestSpace
  readonly database: Database
  readonly turns: Turns
  readonly topics: Topics
  readonly batches = new BatchReader()
  readonly appender: Appender
  readonly outbox: Outbox
  readonly relay: Relay
  readonly clock: Clock
  readonly #users: pg.Client[] = []
  readonly #waiting: (() => void)[] = []

  private constructor(space: TestSpace, database: Database, installed: StageParts) {
    this.space = space
    this.database = database
    this.clock = installed.clock
    this.turns = installed.turns
    this.topics = installed.topics
    this.appender = installed.appender
    this.outbox = installed.outbox
    this.relay = installed.relay
  }

  static async make(context: TestContext, options: StageOptions = {}): Promise<OutboxStage> {
    const space = await newSchema()
    const stage = await OutboxStage.join(context, space, options)
    context.after(() => space.drop())
    await stage.topics.ensure(topicConfig)
    return stage
  }

  /** Another process. */
  static async join(context: TestContext, space: TestSpace, options: StageOptions = {}): Promise<OutboxStage> {
    const { clock = systemClock, logger = silentLogger, query = '', relays = true } = options
    const database = new Database(parsePostgresAddress(`${space.url}&schema=${space.name}${query}`))
    await migrate(database)
    const turns = new Turns(database, clock)
    const topics = new Topics({ database, turns, batches: new BatchReader() })
    const appender = new Appender({ database, topics, onStored: () => {} })
    const hasNotices = relays && !database.address.transactionPooling
    const name = `process-${++processes}`
    const store = (rows: Parameters<typeof appender.storeWithin>[0], groups: readonly AppendGroup[]) =>
      appender.storeWithin(rows, groups, clock.now(), { whateverBacklog: true })
    const onStored = () => stage.#noteStored()
    const relay = new Relay({ database, clock, logger, name, hasNotices, store, onStored })
    const outbox = await Outbox.open({ database, clock, topics, onAppended: (told) => relays && relay.expect(told) })
    const onNotice = (notice: string) => notice === OUTBOX_NOTICE && relay.wake()
    const listener = new Listener({ database, clock, onNotice, onGap: () => relay.wake() })
    if (hasNotices) await listener.start()
    if (relays) relay.start()
    const stage = new OutboxStage(space, database, { clock, turns, topics, appender, outbox, relay })
    context.after(async () => {
      for (const user of stage.#users) await user.end()
      await relay.stop()
      await listener.close()
      await database.close()
    })
    return stage
  }

  /** A connection of the user's, who has a table `users`. */
  async user(url = this.space.url): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => {})
    await client.connect()
    this.#users.push(client)
    await client.query('CREATE TABLE IF NOT EXISTS users (name text PRIMARY KEY)')
    return client
  }

  appendIn(transaction: unknown, data: readonly unknown[], options: PublishOptions = {}) {
    const messages = data.map((item) => newMessage(item, this.clock.now(), options))
    return this.outbox.appendIn(transaction, newGroup(messages, options.topic ?? TOPIC))
  }

  /** What is in the log of a partition, in its order. */
  async logged(topic: string = TOPIC, partition = 0): Promise<unknown[]> {
    const { topicId } = await this.topics.find(topic)
    const { messages } = await this.batches.read(this.database, [{ topicId, partition, from: 0, to: 1_000_000 }])
    return messages[0]!.map(({ event }) => event.data)
  }

  /** Resolves when the relay of this process has next committed something to the log. */
  nextStored(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** What a query of the test's own finds; `@.` stands for the schema. */
  query<Row>(text: string, ...values: readonly unknown[]): Promise<Row[]> {
    return this.database.rows<Row>({ name: `test_${++queries}`, text }, ...values)
  }

  #noteStored(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

interface StageParts {
  readonly clock: Clock
  readonly turns: Turns
  readonly topics: Topics
  readonly appender: Appender
  readonly outbox: Outbox
  readonly relay: Relay
}

let processes = 0
let queries = 0

/** Looks again and again until `check` no longer throws. */
export async function eventually<Result>(check: () => Promise<Result>): Promise<Result> {
  const endsAtMs = performance.now() + EVENTUALLY_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || performance.now() > endsAtMs) throw error
      await turn()
    }
  }
}
