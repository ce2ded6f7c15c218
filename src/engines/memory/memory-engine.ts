import type {
  AppendGroup,
  AppendOptions,
  AppendOutcome,
  Capabilities,
  Engine,
  EngineOptions,
  Source,
  SourceOptions,
  SubscriptionConfig,
  TopicConfig,
} from '../../engine.ts'
import type { Clock, Timer } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { Session } from './delivery/sessions.ts'
import { appendGroup, checkAll } from './log/append.ts'
import { applyRetention } from './log/retention.ts'
import { MemoryAdmin } from './operators/admin.ts'
import { MemorySource } from './source.ts'
import type { MemoryStore } from './store.ts'

const RENEWALS_PER_LEASE = 3

/**
 * One connection to a store. Open from construction to `close`. While open, a timer renews its session three times
 * within the lease and does the store's housekeeping; each operation renews the session too, before it looks at
 * anybody else's, so a blocked event loop never makes an engine give up its own leases.
 */
export class MemoryEngine implements Engine {
  readonly name = 'memory'
  readonly capabilities: Capabilities = {
    durable: false,
    multiProcess: false,
    transactionalAppend: false,
    transactionalHandlers: false,
  }
  readonly admin: MemoryAdmin
  readonly store: MemoryStore
  readonly clock: Clock
  readonly #session: Session
  readonly #sources = new Set<Source>()
  #renewal: Timer
  #closed = false

  constructor(store: MemoryStore, options: EngineOptions) {
    this.store = store
    this.clock = options.environment.clock
    this.#session = new Session(`memory-${store.nextId()}`, options.leaseMs, this.clock.now())
    this.admin = new MemoryAdmin(this)
    this.#renewal = this.#scheduleRenewal()
    this.catchUp()
  }

  get isClosed(): boolean {
    return this.#closed
  }

  async ensureTopic(config: TopicConfig): Promise<void> {
    this.begin('ensureTopic')
    this.store.ensureTopic(config)
  }

  async ensureSubscription(config: SubscriptionConfig): Promise<void> {
    const nowMs = this.begin('ensureSubscription')
    this.store.ensureSubscription(config, nowMs)
  }

  async append(groups: readonly AppendGroup[], options: AppendOptions = {}): Promise<readonly AppendOutcome[]> {
    const nowMs = this.begin('append')
    if (!options.atomic) return groups.map((group) => this.#appendGroup(group, nowMs))
    const refusal = this.#refusalOf(groups)
    return groups.map((group) => refusal ?? this.#appendGroup(group, nowMs))
  }

  async appendIn(): Promise<AppendOutcome> {
    throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: this.name, feature: 'publishing in a transaction' })
  }

  async openSource(options: SourceOptions): Promise<Source> {
    this.begin('openSource')
    const source = new MemorySource(this, this.#session, this.store.subscription(options), options)
    this.#sources.add(source)
    return source
  }

  async close(): Promise<void> {
    if (this.#closed) return
    await Promise.all(Array.from(this.#sources, (source) => source.close()))
    this.#closed = true
    this.#renewal.cancel()
    this.store.sessions.delete(this.#session.id)
  }

  /** Starts an operation: throws when the engine is closed, brings the store up to date, and says what time it is. */
  begin(operation: string): number {
    if (this.#closed) throw new PosthornError('POSTHORN_CLOSED', { operation })
    return this.catchUp()
  }

  catchUp(): number {
    const nowMs = this.clock.now()
    if (!this.#closed) {
      this.#session.renew(nowMs)
      this.store.sessions.set(this.#session.id, this.#session)
    }
    this.store.catchUp(nowMs)
    return nowMs
  }

  #refusalOf(groups: readonly AppendGroup[]): AppendOutcome | undefined {
    try {
      checkAll(this.store, groups)
      return undefined
    } catch (error) {
      return refused(error)
    }
  }

  #appendGroup(group: AppendGroup, nowMs: number): AppendOutcome {
    try {
      const topic = this.store.topic(group.topic)
      const receipts = appendGroup(topic, group, nowMs)
      this.store.waiters.wake(topic)
      return { receipts }
    } catch (error) {
      return refused(error)
    }
  }

  #scheduleRenewal(): Timer {
    return this.clock.setTimer(this.#session.leaseMs / RENEWALS_PER_LEASE, () => {
      const nowMs = this.catchUp()
      for (const topic of this.store.topics.values()) {
        topic.forgetExpiredIds(nowMs)
        applyRetention(topic, nowMs)
      }
      for (const subscription of this.store.subscriptions()) {
        subscription.admissions.forgetIdle(nowMs)
        subscription.sweepSteps()
      }
      this.#renewal = this.#scheduleRenewal()
    })
  }
}

function refused(error: unknown): AppendOutcome {
  if (error instanceof PosthornError) return { refused: error }
  throw error
}
