import type { Admission, AdmissionDemand, Buckets, InFlightLimit, Limit, RateLimit } from '../../src/engine.ts'
import type { VirtualClock } from '../../src/testing/virtual-clock.ts'
import type { FakeSource } from './fake-source.ts'

// How far ahead a message is admitted, and how long before it could be its source is to ask again.
const SOON_MS = 100
const LEAD_MS = 50

/** What the contract says of admission: token buckets and places in flight, over all sources that are given to it. */
export class LimitKeeper {
  readonly #clock: VirtualClock
  readonly #limits: readonly Limit[]
  /** When each token bucket was, or will be, full. */
  readonly #fullAtMs = new Map<string, number>()
  readonly #inFlight = new Map<string, number>()

  constructor(clock: VirtualClock, limits: readonly Limit[]) {
    this.#clock = clock
    this.#limits = limits
  }

  serve(source: FakeSource): void {
    source.answerAdmit = async (demands, finished) => {
      for (const { buckets, messages } of finished) this.#leave(buckets, messages)
      return demands.map((demand) => this.#answer(demand))
    }
  }

  /** Places taken in a bucket of the first limit. */
  inFlight(bucket: string): number {
    return this.#inFlight.get(`0:${bucket}`) ?? 0
  }

  #answer({ buckets, starts }: AdmissionDemand): Admission {
    const startsInMs: number[] = []
    while (startsInMs.length < starts) {
      const inMs = Math.max(
        ...this.#limits.map((limit, position) => this.#waitMs(limit, `${position}:${buckets[position]}`)),
      )
      if (inMs > SOON_MS) return { startsInMs, againInMs: Math.min(1_000, inMs - LEAD_MS) }
      for (const [position, limit] of this.#limits.entries())
        this.#enter(limit, `${position}:${buckets[position]}`, inMs)
      startsInMs.push(inMs)
    }
    return { startsInMs, againInMs: 0 }
  }

  #waitMs(limit: Limit, bucket: string): number {
    if (limit.kind === 'inFlight') return (this.#inFlight.get(bucket) ?? 0) < limit.limit ? 0 : Number.POSITIVE_INFINITY
    const fullInMs = (this.#fullAtMs.get(bucket) ?? 0) - this.#clock.elapsedMs()
    return Math.max(0, fullInMs - (limit.burst - 1) * refillMs(limit))
  }

  #enter(limit: RateLimit | InFlightLimit, bucket: string, inMs: number): void {
    if (limit.kind === 'inFlight') {
      this.#inFlight.set(bucket, (this.#inFlight.get(bucket) ?? 0) + 1)
      return
    }
    const startMs = this.#clock.elapsedMs() + inMs
    this.#fullAtMs.set(bucket, Math.max(startMs, this.#fullAtMs.get(bucket) ?? 0) + refillMs(limit))
  }

  #leave(buckets: Buckets, messages: number): void {
    for (const [position, { kind }] of this.#limits.entries()) {
      const bucket = `${position}:${buckets[position]}`
      if (kind === 'inFlight') this.#inFlight.set(bucket, (this.#inFlight.get(bucket) ?? 0) - messages)
    }
  }
}

function refillMs({ limit, perMs, graceMs, burst }: RateLimit): number {
  return (perMs + graceMs) / (limit - burst + 1)
}
