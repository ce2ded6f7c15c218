import type { Grant, LeaseId, Settlement, Source, SourceOptions } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import { GrantRound, type PullLimits } from './grants.ts'
import type { Lease, LeaseHolder } from './leases.ts'
import type { MemoryEngine } from './memory-engine.ts'
import { applyRetention } from './retention.ts'
import type { Session } from './sessions.ts'
import { releaseLeases, settleLease } from './settlement.ts'
import type { Subscription } from './subscription.ts'

/**
 * One engine's share of a subscription. Open until it is closed, by the user or by its engine; then its leases are
 * given back, a waiting pull resolves with nothing, and settlements find their leases gone.
 */
export class MemorySource implements Source, LeaseHolder {
  readonly session: Session
  readonly #engine: MemoryEngine
  readonly #subscription: Subscription
  readonly #options: SourceOptions
  readonly #closing = new AbortController()
  #pulls = 0

  constructor(engine: MemoryEngine, session: Session, subscription: Subscription, options: SourceOptions) {
    this.session = session
    this.#engine = engine
    this.#subscription = subscription
    this.#options = options
    session.add(options, options.handlerTimeoutMs)
  }

  async pull(limits: PullLimits, signal: AbortSignal): Promise<readonly Grant[]> {
    const ending = AbortSignal.any([signal, this.#closing.signal])
    while (!ending.aborted) {
      const nowMs = this.#engine.catchUp()
      this.#subscription.requireExists()
      const grants = this.#grant(limits, nowMs)
      if (grants.length > 0) return grants
      await this.#waitForChange(nowMs, ending)
    }
    return []
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    if (this.#engine.isClosed) throw new PosthornError('POSTHORN_CLOSED', { operation: 'settle' })
    const nowMs = this.#engine.catchUp()
    const fenced: LeaseId[] = []
    for (const settlement of settlements) {
      const lease = this.#heldLease(settlement.lease)
      if (lease) settleLease(this.#engine.store, this.#subscription, lease, settlement, nowMs)
      else fenced.push(settlement.lease)
    }
    this.#finishChange(nowMs)
    return fenced
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    this.session.remove(this.#options)
    const nowMs = this.#engine.catchUp()
    const held = [...this.#subscription.leases.values()].filter((lease) => lease.holder === this)
    releaseLeases(this.#subscription, held, nowMs)
    this.#engine.store.waiters.wakeAll()
  }

  leasesLost(leases: readonly LeaseId[], reason: string): void {
    if (!this.#closing.signal.aborted) this.#options.onLeasesLost(leases, reason)
  }

  #heldLease(id: LeaseId): Lease | undefined {
    const lease = this.#subscription.leases.get(id)
    return lease?.holder === this ? lease : undefined
  }

  #grant(limits: PullLimits, nowMs: number): readonly Grant[] {
    const { store } = this.#engine
    if (this.#subscription.paused) return []
    const request = {
      subscription: this.#subscription,
      holder: this,
      limits,
      nowMs,
      turn: this.#pulls,
      suspectAllowed: !this.#hasSuspectOut(),
    }
    const grants = new GrantRound(request, store.decoded, store.nextId).run()
    if (grants.length > 0) this.#pulls++
    return grants
  }

  #hasSuspectOut(): boolean {
    for (const { leases } of this.#engine.store.subscriptions()) {
      for (const lease of leases.values()) if (lease.isolated && lease.holder.session === this.session) return true
    }
    return false
  }

  #waitForChange(nowMs: number, ending: AbortSignal): Promise<void> {
    const { store, clock } = this.#engine
    const untilMs = store.nextDueMs(this.#subscription, nowMs)
    return store.waiters.wait(this.#subscription.topic, clock, untilMs, ending)
  }

  #finishChange(nowMs: number): void {
    const { topic } = this.#subscription
    if (topic.config.kind === 'queue') applyRetention(topic, nowMs)
    this.#engine.store.waiters.wake(topic)
  }
}
