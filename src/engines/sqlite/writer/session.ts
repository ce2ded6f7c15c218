import type { Liveness } from '../liveness.ts'
import type { Store } from '../store/store.ts'
import type { Sources } from './sources.ts'

/**
 * This process's session: none until the first source is opened; then one that is renewed three times per lease, until
 * it is found to be gone, when another takes its place and all leases of the old one are void.
 */
export class Session {
  readonly #store: Store
  readonly #liveness: Liveness
  readonly #leaseMs: number
  #id = 0
  #renewedAtMs = 0

  constructor(store: Store, liveness: Liveness, leaseMs: number) {
    this.#store = store
    this.#liveness = liveness
    this.#leaseMs = leaseMs
  }

  /** 0 while there is none. */
  get id(): number {
    return this.#id
  }

  get renewalDueMs(): number {
    return this.#id === 0 ? Number.POSITIVE_INFINITY : this.#renewedAtMs + this.#leaseMs / 3
  }

  /**
   * Makes sure, before leases are granted or settled, that there is a session if there are sources. Returns why the
   * last one was lost, if it was. A failing file leaves everything as it is, to be tried again in the next turn.
   */
  keep(nowMs: number, sources: Sources): string | undefined {
    if (this.#id === 0) return undefined
    try {
      if (this.#store.sessions.exists(this.#id)) {
        if (nowMs >= this.renewalDueMs) this.#renew(nowMs)
        return undefined
      }
      this.#id = 0
      this.open(nowMs, sources)
      return this.#reason(nowMs)
    } catch {
      return undefined
    }
  }

  /** Starts the session, unless there is one. */
  open(nowMs: number, sources: Sources): void {
    if (this.#id !== 0) return
    const { connection, sessions } = this.#store
    const started = connection.write(false, () => {
      const id = sessions.start(nowMs, this.#leaseMs)
      for (const { subscriptionId } of sources.all()) sessions.addSubscription(id, subscriptionId)
      return id
    })
    this.#id = started
    this.#renewedAtMs = nowMs
  }

  /** Gives back what is leased. Returns whether there was a session to end. */
  end(): boolean {
    if (this.#id === 0) return false
    this.#store.connection.write(false, () => {
      this.#store.recall.releaseAll(this.#id)
      this.#store.sessions.end(this.#id)
    })
    this.#id = 0
    return true
  }

  #renew(nowMs: number): void {
    // Not renewed while the event loop seems dead: then the messages had better go to another process.
    if (this.#liveness.silentMs(nowMs) > 0) return
    const { connection, leases, sessions } = this.#store
    const useIds = connection.write(false, () => {
      sessions.renew(this.#id, nowMs + this.#leaseMs)
      return leases.needsIds ? leases.reserveIds() : undefined
    })
    useIds?.()
    this.#renewedAtMs = nowMs
  }

  #reason(nowMs: number): string {
    const silentMs = this.#liveness.silentMs(nowMs)
    if (silentMs > 0) return `the event loop did not turn for ${Math.round(silentMs)} ms`
    return `it was not renewed for ${Math.round(nowMs - this.#renewedAtMs)} ms`
  }
}
