import type { Clock } from '../../../environment/index.ts'
import type { Liveness } from '../liveness.ts'
import type { LostLeases } from '../protocol.ts'
import type { Store } from '../store/store.ts'
import type { Sources } from './sources.ts'

/**
 * This process's session: none until the first source is opened; then one that is renewed three times per lease, until
 * it is found to be gone, when another takes its place and all leases of the old one are void. The old one is let go
 * only once the new one is stored, so that a failing file leaves everything to be tried again in the next turn.
 */
export class Session {
  readonly #store: Store
  readonly #liveness: Liveness
  readonly #leaseMs: number
  readonly #clock: Clock
  #id = 0
  #renewedAtMs = 0
  /** How many were lost. */
  #losses: number

  constructor(store: Store, liveness: Liveness, leaseMs: number, clock: Clock) {
    this.#store = store
    this.#liveness = liveness
    this.#leaseMs = leaseMs
    this.#clock = clock
    this.#losses = liveness.losses
  }

  /** 0 while there is none. */
  get id(): number {
    return this.#id
  }

  get #leasedUntilMs(): number {
    return this.#renewedAtMs + this.#leaseMs
  }

  get renewalDueMs(): number {
    return this.#id === 0 ? Number.POSITIVE_INFINITY : this.#renewedAtMs + this.#leaseMs / 3
  }

  /** Whether it is still stored. Ask within the transaction that leases to it: another process may just have ended it. */
  isStored(): boolean {
    return this.#store.sessions.exists(this.#id)
  }

  /**
   * Makes sure, before leases are granted or settled, that there is a session if there are sources. Returns which
   * leases were found to be lost, if any were.
   */
  keep(nowMs: number, sources: Sources): LostLeases | undefined {
    if (this.#id === 0) return undefined
    try {
      if (!this.isStored()) return this.#replace(nowMs, sources)
      return nowMs >= this.renewalDueMs || this.#store.leases.needsIds ? this.#renew(nowMs, sources) : undefined
    } catch {
      return undefined
    }
  }

  /** Starts the session, unless there is one. */
  open(sources: Sources): void {
    if (this.#id !== 0) return
    this.#start(sources)
    this.#liveness.extend(this.#leasedUntilMs, this.#losses)
  }

  /** Gives back what is leased. Returns whether there was a session to end. */
  end(): boolean {
    if (this.#id === 0) return false
    this.#store.connection.write(() => {
      this.#store.recall.releaseAll(this.#id)
      this.#store.sessions.end(this.#id)
    })
    this.#id = 0
    return true
  }

  #start(sources: Sources): void {
    const { connection, leases, sessions, breakers } = this.#store
    const started = connection.write(() => {
      // Asked for again, because the lock may have been long in coming.
      const startedAtMs = this.#clock.now()
      const id = sessions.start(startedAtMs, this.#leaseMs)
      for (const { number, subscriptionId, breaker } of sources.all()) {
        sessions.addSource(id, number, subscriptionId)
        if (breaker) breakers.report(id, number, breaker)
      }
      return { id, startedAtMs, useIds: leases.needsIds ? leases.reserveIds() : undefined }
    })
    started.useIds?.()
    this.#id = started.id
    this.#renewedAtMs = started.startedAtMs
  }

  #replace(nowMs: number, sources: Sources): LostLeases {
    const reason = this.#reason(nowMs)
    this.#start(sources)
    this.#losses++
    sources.disownAll()
    return { reason, held: sources.takeLeases(), leasedUntilMs: this.#leasedUntilMs }
  }

  #renew(nowMs: number, sources: Sources): LostLeases | undefined {
    // Not renewed while the event loop seems dead: then the messages had better go to another process.
    if (this.#liveness.silentMs(nowMs) > 0) return undefined
    const { connection, leases, sessions } = this.#store
    const renewed = connection.write(() => {
      const renewedAtMs = this.#clock.now()
      sessions.renew(this.#id, renewedAtMs + this.#leaseMs)
      return {
        renewedAtMs,
        held: leases.heldBy(this.#id),
        useIds: leases.needsIds ? leases.reserveIds() : undefined,
      }
    })
    renewed.useIds?.()
    this.#renewedAtMs = renewed.renewedAtMs
    this.#liveness.extend(this.#leasedUntilMs, this.#losses)
    const held = sources.takeLeases((lease) => !renewed.held.has(lease))
    return held.length === 0 ? undefined : { reason: 'an operator took its messages back', held }
  }

  #reason(nowMs: number): string {
    const silentMs = this.#liveness.silentMs(nowMs)
    if (silentMs > 0) return `the event loop did not turn for ${Math.round(silentMs)} ms`
    return `it was not renewed for ${Math.round(nowMs - this.#renewedAtMs)} ms`
  }
}
