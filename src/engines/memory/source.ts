import type {
  Admission,
  AdmissionDemand,
  BreakerReport,
  FinishedMessages,
  Grant,
  LeaseId,
  Settlement,
  Source,
  SourceOptions,
} from '../../engine.ts'
import { linkSignals, type Timer } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { grant } from './delivery/grants.ts'
import type { Lease, LeaseHolder } from './delivery/leases.ts'
import { Leasing, type PullLimits } from './delivery/leasing.ts'
import type { Session } from './delivery/sessions.ts'
import { applyRetention } from './log/retention.ts'
import type { MemoryEngine } from './memory-engine.ts'
import { Settling } from './settlement/settlement.ts'
import type { MessagePlace, Subscription } from './subscription.ts'

// What a settlement that crossed a cancellation may still name.
const ENDED_LEASES_MAX = 1_000
const SURPLUS_INTERVAL_MS = 100

/**
 * One engine's share of a subscription. Open until it is closed, by the user or by its engine; then its leases are
 * given back, a waiting pull resolves with nothing, and settlements find their leases gone. When its session is lost,
 * the subscription forgets it, until it asks for something again.
 */
export class MemorySource implements Source, LeaseHolder {
  /** All that share the store are stopped together, and a session renews itself before it looks at another. */
  readonly leasedUntilMs = Number.POSITIVE_INFINITY
  readonly session: Session
  readonly #engine: MemoryEngine
  readonly #subscription: Subscription
  readonly #options: SourceOptions
  readonly #closing = new AbortController()
  /** Leases that a cancellation ended, and their partitions. */
  readonly #endedLeases = new Map<LeaseId, number>()
  #pulls = 0
  /** With real time: until then nothing more is said of a surplus. */
  #quiet: Timer | undefined

  constructor(engine: MemoryEngine, session: Session, subscription: Subscription, options: SourceOptions) {
    this.session = session
    this.#engine = engine
    this.#subscription = subscription
    this.#options = options
    session.add(options, options.handlerTimeoutMs)
    subscription.sources.add(this)
    subscription.ownership.giveUpSurplus()
    engine.store.waiters.wake(subscription.topic)
  }

  async pull(limits: PullLimits, signal: AbortSignal): Promise<readonly Grant[]> {
    const { signal: ending, unlink } = linkSignals(signal, this.#closing.signal)
    try {
      return await this.#pullUntil(ending, limits)
    } finally {
      unlink()
    }
  }

  async #pullUntil(ending: AbortSignal, limits: PullLimits): Promise<readonly Grant[]> {
    while (!ending.aborted) {
      const nowMs = this.#engine.catchUp()
      this.#subscription.requireExists()
      this.#enlist()
      const grants = this.#grant(limits, nowMs)
      if (grants.length > 0) return grants
      await this.#waitForChange(nowMs, ending)
    }
    return []
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    const nowMs = this.#begin('settle')
    const settling = new Settling(this.#engine.store, this.#subscription, nowMs)
    const fenced: LeaseId[] = []
    for (const settlement of settlements) {
      const lease = this.#heldLease(settlement.lease)
      if (lease) settling.settle(lease, settlement)
      else if (!this.#settleEnded(settlement, nowMs)) fenced.push(settlement.lease)
    }
    this.#finishChange(nowMs)
    return fenced
  }

  async admit(
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    const nowMs = this.#begin('admit')
    if (this.#closing.signal.aborted) throw new PosthornError('POSTHORN_CLOSED', { operation: 'admit' })
    const { admissions } = this.#subscription
    const { limits } = this.#options
    for (const messages of finished) admissions.finish(this, limits, messages)
    return demands.map((demand) => admissions.admit(this, limits, demand, nowMs))
  }

  async reportBreaker(report: BreakerReport | undefined): Promise<void> {
    this.#begin('reportBreaker')
    if (report && !this.#closing.signal.aborted) this.#subscription.breakers.set(this, report)
    else this.#subscription.breakers.delete(this)
  }

  async steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    this.#begin('steps')
    return this.#subscription.steps.of(this.#heldPlace(lease, offset) ?? this.#refuseLost())
  }

  async recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void> {
    this.#begin('recordStep')
    const place = this.#heldPlace(lease, offset) ?? this.#failedPlace(lease, offset) ?? this.#refuseLost()
    this.#subscription.steps.record(place, name, result)
  }

  async transact(): Promise<never> {
    throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: this.#engine.name, feature: 'transactional handlers' })
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    this.#quiet?.cancel()
    this.session.remove(this.#options)
    const nowMs = this.#engine.catchUp()
    const held = [...this.#subscription.leases.values()].filter((lease) => lease.holder === this)
    new Settling(this.#engine.store, this.#subscription, nowMs).release(held)
    this.#subscription.forgetSource(this)
    this.#engine.store.waiters.wakeAll()
  }

  leasesLost(leases: readonly LeaseId[], reason: string): void {
    if (!this.#closing.signal.aborted) this.#options.onLeasesLost(leases, reason)
  }

  cancelled({ id, range, unsettled }: Lease, offset: number): void {
    if (unsettled === 0) this.#endedLeases.set(id, range.partition)
    if (this.#endedLeases.size > ENDED_LEASES_MAX) this.#endedLeases.delete(this.#endedLeases.keys().next().value!)
    queueMicrotask(() => {
      if (!this.#closing.signal.aborted) this.#options.onCancelled(id, offset)
    })
  }

  crowded(partitions: readonly number[]): void {
    const { clock } = this.#engine
    if (this.#quiet !== undefined) return
    if (clock.real) {
      this.#quiet = clock.setTimer(SURPLUS_INTERVAL_MS, () => {
        this.#quiet = undefined
        this.#subscription.ownership.giveUpSurplus()
      })
    }
    queueMicrotask(() => {
      if (!this.#closing.signal.aborted) this.#options.onSurplus(partitions)
    })
  }

  #begin(operation: string): number {
    const nowMs = this.#engine.begin(operation)
    this.#enlist()
    return nowMs
  }

  /** The subscription may have forgotten it with a session that was lost. */
  #enlist(): void {
    if (!this.#closing.signal.aborted) this.#subscription.sources.add(this)
  }

  #heldLease(id: LeaseId): Lease | undefined {
    const lease = this.#subscription.leases.get(id)
    return lease?.holder === this ? lease : undefined
  }

  /** Of a message that failed under the lease, and waits for its next attempt. */
  #failedPlace(id: LeaseId, offset: number): MessagePlace | undefined {
    if (this.#closing.signal.aborted) return undefined
    return this.#subscription.rows.failedUnder(id, offset)
  }

  #heldPlace(id: LeaseId, offset: number): MessagePlace | undefined {
    const lease = this.#heldLease(id)
    return lease?.isOpen(offset) ? { partition: lease.range.partition, offset } : undefined
  }

  #refuseLost(): never {
    const details = { subscription: this.#subscription.name, reason: 'it is not held by this consumer any more' }
    throw new PosthornError('POSTHORN_LEASE_LOST', details)
  }

  /** There is nothing left to settle under the lease; the keys that it frees are free nevertheless. */
  #settleEnded({ lease, freed = [] }: Settlement, nowMs: number): boolean {
    const partition = this.#endedLeases.get(lease)
    if (partition === undefined) return false
    this.#endedLeases.delete(lease)
    for (const key of freed) this.#subscription.chains.advance(partition, key, nowMs)
    return true
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
    const grants = grant(new Leasing(request, store.decoded, store.nextId))
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
    const { topic, ownership } = this.#subscription
    ownership.giveUpSurplus()
    if (topic.config.kind === 'queue') applyRetention(topic, nowMs)
    this.#engine.store.waiters.wake(topic)
  }
}
