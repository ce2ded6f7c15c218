/** What the fault tests of the SQLite engine share: files of their own, engines on real time, and short ways to use them. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import type { TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type {
  AppendReceipt,
  Engine,
  Grant,
  LeaseId,
  Source,
  SourceOptions,
  SubscriptionConfig,
  SubscriptionState,
  TopicConfig,
} from '../../../src/engine.ts'
import { abandonSqliteEngine, connectSqlite } from '../../../src/engines/sqlite/index.ts'
import { silentLogger, systemEnvironment } from '../../../src/environment/index.ts'
import { type ErrorCode, PosthornError } from '../../../src/errors.ts'
import { newGroup, newMessage, type PublishOptions, SUBSCRIPTION, TOPIC } from '../../conformance/messages.ts'

export { SUBSCRIPTION, TOPIC }

export const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const DAY_MS = 86_400_000
const PATIENCE_MS = 20_000

export const topicConfig: TopicConfig = {
  topic: TOPIC,
  kind: 'topic',
  partitions: 1,
  deduplicationWindowMs: 60_000,
  retention: { maxAgeMs: 7 * DAY_MS, dropUnread: false },
}

/** A folder that goes when the test ends. */
export function folder(test: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'posthorn-sqlite-'))
  test.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export function newFile(test: TestContext): string {
  return join(folder(test), 'store.db')
}

/** An engine, with short ways to say what tests do with it. Closed when the test ends. */
export class Bench {
  readonly engine: Engine

  private constructor(engine: Engine) {
    this.engine = engine
  }

  static async open(test: TestContext, address: string, leaseMs = 60_000): Promise<Bench> {
    const environment = { ...systemEnvironment, logger: silentLogger }
    const engine = await connectSqlite(`sqlite:${address}`, { environment, leaseMs })
    test.after(() => engine.close().catch(() => {}))
    return new Bench(engine)
  }

  /** With a topic and a subscription, ready to use. */
  static async make(
    test: TestContext,
    address: string,
    { leaseMs, ...config }: Partial<TopicConfig> & { leaseMs?: number } = {},
  ): Promise<Bench> {
    const bench = await Bench.open(test, address, leaseMs)
    await bench.engine.ensureTopic({ ...topicConfig, ...config })
    await bench.subscription()
    return bench
  }

  subscription(config: Partial<SubscriptionConfig> = {}): Promise<void> {
    const defaults = { ...HERE, maxCrashes: 2, ordered: false, maxParked: 100_000 }
    return this.engine.ensureSubscription({ ...defaults, ...config })
  }

  async source(
    options: Partial<Pick<SourceOptions, 'topic' | 'subscription' | 'handlerTimeoutMs' | 'limits'>> = {},
  ): Promise<Reader> {
    const lost: Reader['lost'] = []
    const damage: Error[] = []
    const cancelled: Reader['cancelled'] = []
    const source = await this.engine.openSource({
      ...HERE,
      handlerTimeoutMs: 60_000,
      limits: [],
      ...options,
      onCancelled: (lease, offset) => cancelled.push({ lease, offset }),
      onSurplus() {},
      onLeasesLost: (leases, reason) => lost.push({ leases, reason }),
      onDamage: (error) => damage.push(error),
    })
    return new Reader(source, lost, damage, cancelled, this.engine)
  }

  async publish(data: readonly unknown[], options: PublishOptions = {}): Promise<readonly AppendReceipt[]> {
    const messages = data.map((item) => newMessage(item, Date.now(), options))
    const [outcome] = await this.engine.append([newGroup(messages, options.topic)])
    assert.ok(outcome)
    if ('refused' in outcome) throw outcome.refused
    return outcome.receipts
  }

  async state(subscription = SUBSCRIPTION): Promise<SubscriptionState> {
    const state = (await this.engine.admin.subscriptions()).find((item) => item.subscription === subscription)
    assert.ok(state)
    return state
  }

  /** Ends the engine as `kill -9` would. */
  crash(): Promise<void> {
    return abandonSqliteEngine(this.engine)
  }
}

/** A source, with short ways to pull and to settle. */
export class Reader {
  readonly source: Source
  readonly lost: { leases: readonly LeaseId[] | 'all'; reason: string }[]
  readonly damage: Error[]
  readonly cancelled: { lease: LeaseId; offset: number }[]
  readonly #engine: Engine

  constructor(source: Source, lost: Reader['lost'], damage: Error[], cancelled: Reader['cancelled'], engine: Engine) {
    this.source = source
    this.lost = lost
    this.damage = damage
    this.cancelled = cancelled
    this.#engine = engine
  }

  pull(messagesMax = 1_000, signal = AbortSignal.timeout(PATIENCE_MS)): Promise<readonly Grant[]> {
    return this.source.pull({ messagesMax, bytesMax: 64 * 2 ** 20 }, signal)
  }

  /** What can be had now. */
  async pullNow(messagesMax?: number): Promise<readonly Grant[]> {
    const giveUp = new AbortController()
    const pulling = this.pull(messagesMax, giveUp.signal)
    await Promise.race([pulling, this.#engine.admin.topics()])
    giveUp.abort()
    return pulling
  }

  ack(grants: readonly Grant[]): Promise<readonly LeaseId[]> {
    return this.source.settle(
      grants.map(({ lease, messages }) => ({
        lease,
        acked: [messages[0]!.offset, messages.at(-1)!.offset + 1],
        exceptions: [],
      })),
    )
  }

  /** Pulls and acknowledges until `count` messages have come. Returns their data. */
  async take(count: number): Promise<unknown[]> {
    const data: unknown[] = []
    while (data.length < count) {
      const grants = await this.pull()
      assert.ok(grants.length > 0, `only ${data.length} of ${count} messages came`)
      data.push(...dataOf(grants))
      assert.deepEqual(await this.ack(grants), [])
    }
    return data
  }
}

export function dataOf(grants: readonly Grant[]): unknown[] {
  return grants.flatMap(({ messages }) => messages.map(({ event }) => event.data))
}

/** Runs SQL on the file through a connection of its own. */
export function sql(file: string, text: string, ...values: SQLInputValue[]): Record<string, unknown>[] {
  using database = new DatabaseSync(file, { timeout: 5_000 })
  return database.prepare(text).all(...values)
}

/** Waits for a condition, by turns of the event loop. */
export async function eventually<T>(check: () => Promise<T> | T): Promise<T> {
  const untilMs = Date.now() + PATIENCE_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || Date.now() > untilMs) throw error
      await setImmediate()
    }
  }
}

export function coded(code: ErrorCode): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PosthornError, `${error}`)
    assert.equal(error.code, code, error.message)
    return true
  }
}
