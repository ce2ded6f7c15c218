import { hostname } from 'node:os'
import type { ConsumerState, SubscriptionRef } from '../../../engine.ts'

/**
 * One engine's life as the store sees it. It lives until `leaseUntilMs`; the engine renews it three times within each
 * `leaseMs`. All engines of a store share a process, which cannot die in part: a session that is late is held up by a
 * blocked event loop, so it is trusted for as long as its longest handler may run.
 */
export class Session {
  readonly id: string
  readonly leaseMs: number
  readonly startedAtMs: number
  /** One entry for each open source. */
  readonly open: SubscriptionRef[] = []
  #trustMs: number
  #consumes = false
  #renewedAtMs: number

  constructor(id: string, leaseMs: number, nowMs: number) {
    this.id = id
    this.leaseMs = leaseMs
    this.startedAtMs = nowMs
    this.#renewedAtMs = nowMs
    this.#trustMs = leaseMs
  }

  get leaseUntilMs(): number {
    return this.#renewedAtMs + this.#trustMs
  }

  renew(nowMs: number): void {
    this.#renewedAtMs = nowMs
  }

  add(subscription: SubscriptionRef, handlerTimeoutMs: number): void {
    this.#consumes = true
    this.#trustMs = Math.max(this.#trustMs, handlerTimeoutMs)
    this.open.push(subscription)
  }

  remove(subscription: SubscriptionRef): void {
    const place = this.open.indexOf(subscription)
    if (place !== -1) this.open.splice(place, 1)
  }

  state(): ConsumerState | undefined {
    if (!this.#consumes) return undefined
    return {
      id: this.id,
      host: hostname(),
      pid: process.pid,
      startedAtMs: this.startedAtMs,
      leaseUntilMs: this.leaseUntilMs,
      subscriptions: this.open.map(({ topic, subscription }) => ({ topic, subscription })),
    }
  }
}
