/**
 * One connection of a process to a store in Postgres.
 *
 * All that is asked for is sent to the server from the event loop, which never waits for it; only the session is kept
 * alive by a thread. States: open; closing, when nothing new is taken, and what was begun is finished; closed. While the
 * server is away, calls reject with a coded error, and pulls are tried again by whoever pulls. Closing takes some seconds
 * at most: then connections that nobody answers are dropped.
 */
import type {
  AppendGroup,
  AppendOptions,
  AppendOutcome,
  Capabilities,
  Engine,
  EngineAdmin,
  EngineOptions,
  Source,
  SourceOptions,
  SubscriptionConfig,
  TopicConfig,
} from '../../engine.ts'
import type { PostgresAddress } from './address.ts'
import { Parts } from './parts.ts'
import { PostgresSource } from './source.ts'

/** After so long it gives up what a server that does not answer was to be told. */
const CLOSE_MS_MAX = 5_000

export class PostgresEngine implements Engine {
  readonly name = 'postgres'
  readonly capabilities: Capabilities = {
    durable: true,
    multiProcess: true,
    transactionalAppend: true,
    transactionalHandlers: true,
  }
  readonly #parts: Parts
  readonly #appends = new Set<Promise<unknown>>()
  #nextSource = 1
  #closing: Promise<void> | undefined

  private constructor(parts: Parts) {
    this.#parts = parts
  }

  static async open(address: PostgresAddress, options: EngineOptions): Promise<PostgresEngine> {
    return new PostgresEngine(await Parts.open(address, options))
  }

  get admin(): EngineAdmin {
    return this.#parts.admin
  }

  async ensureTopic(config: TopicConfig): Promise<void> {
    this.#parts.requireOpen('ensureTopic')
    await this.#parts.topics.ensure(config)
  }

  async ensureSubscription(config: SubscriptionConfig): Promise<void> {
    this.#parts.requireOpen('ensureSubscription')
    const { topics } = this.#parts
    await topics.ensureSubscription(config)
    const { subscriptionId } = await topics.findSubscription(config)
    this.#parts.wakeUps.subscription(subscriptionId)
  }

  async append(groups: readonly AppendGroup[], options: AppendOptions = {}): Promise<readonly AppendOutcome[]> {
    this.#parts.requireOpen('append')
    return this.#underWay(this.#parts.appender.append(groups, options, this.#parts.clock.now()))
  }

  async appendIn(transaction: unknown, group: AppendGroup): Promise<AppendOutcome> {
    this.#parts.requireOpen('appendIn')
    return this.#underWay(this.#parts.outbox.appendIn(transaction, group))
  }

  async openSource(options: SourceOptions): Promise<Source> {
    this.#parts.requireOpen('openSource')
    const { topics, session, sources } = this.#parts
    const key = await topics.findSubscription(options)
    await session.start()
    session.trust(options.handlerTimeoutMs)
    const source = new PostgresSource(this.#parts, key, options, this.#nextSource++)
    sources.add(source)
    try {
      await source.enlist()
    } catch (error) {
      // It may be enlisted all the same.
      await source.close().catch(() => {})
      throw error
    }
    return source
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** As the death of the process would: nothing is given back. */
  async abandon(): Promise<void> {
    this.#parts.close()
    this.#closing ??= Promise.resolve()
    for (const source of this.#parts.sources) source.abandon()
    await this.#parts.kill()
  }

  async #close(): Promise<void> {
    const patience = this.#parts.clock.setTimer(CLOSE_MS_MAX, () => this.#parts.cutOff())
    try {
      await Promise.allSettled([...this.#parts.sources].map((source) => source.close()))
      this.#parts.close()
      await Promise.allSettled(this.#appends)
      await this.#parts.stop()
    } finally {
      patience.cancel()
    }
  }

  async #underWay<Value>(work: Promise<Value>): Promise<Value> {
    this.#appends.add(work)
    try {
      return await work
    } finally {
      this.#appends.delete(work)
    }
  }
}
