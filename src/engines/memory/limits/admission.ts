import type {
  Admission,
  AdmissionDemand,
  Buckets,
  FinishedMessages,
  InFlightLimit,
  Limit,
  RateLimit,
} from '../../../engine.ts'
import { askAgainInMs, TokenBucket, takeStarts } from '../../token-bucket.ts'
import type { LeaseHolder } from '../delivery/leases.ts'

const ASK_FOR_PLACES_MS = 25

/** A bucket that a demand counts in. */
interface Counted<Kind extends Limit> {
  readonly limit: Kind
  readonly counter: string
}

interface Counters {
  readonly rates: readonly Counted<RateLimit>[]
  readonly places: readonly Counted<InFlightLimit>[]
}

/**
 * Keeps to the limits of a subscription over all of its sources. Of each bucket of a rate limit it keeps the time at
 * which the bucket is full again; of each bucket of a limit of messages in flight, how many places each source holds.
 * What is not there stands for a full bucket, or for no places.
 */
export class Admissions {
  readonly #fullAtMs = new Map<string, number>()
  readonly #places = new Map<string, Map<LeaseHolder, number>>()

  admit(source: LeaseHolder, limits: readonly Limit[], demand: AdmissionDemand, nowMs: number): Admission {
    const counters = countersOf(limits, demand.buckets)
    const buckets = counters.rates.map(({ limit, counter }) => {
      return new TokenBucket(limit, this.#fullAtMs.get(counter), nowMs)
    })
    const startsMs = takeStarts(buckets, Math.min(demand.starts, this.#freePlaces(counters)), nowMs)
    if (startsMs.length > 0) this.#keep(source, counters, buckets, startsMs.length)
    const placesInMs = this.#freePlaces(counters) === 0 ? ASK_FOR_PLACES_MS : 1
    return {
      startsInMs: startsMs.map((startMs) => startMs - nowMs),
      againInMs: Math.max(placesInMs, askAgainInMs(buckets, nowMs)),
    }
  }

  finish(source: LeaseHolder, limits: readonly Limit[], { buckets, messages }: FinishedMessages): void {
    for (const { counter } of countersOf(limits, buckets).places) this.#hold(counter, source, -messages)
  }

  /** The source holds no places any more. */
  release(source: LeaseHolder): void {
    for (const [counter, holders] of this.#places) {
      holders.delete(source)
      if (holders.size === 0) this.#places.delete(counter)
    }
  }

  /** Forgets buckets that are full. */
  forgetIdle(nowMs: number): void {
    for (const [counter, fullAtMs] of this.#fullAtMs) if (fullAtMs <= nowMs) this.#fullAtMs.delete(counter)
  }

  #keep(source: LeaseHolder, { rates, places }: Counters, buckets: readonly TokenBucket[], started: number): void {
    for (const [place, { counter }] of rates.entries()) this.#fullAtMs.set(counter, buckets[place]!.nextAtMs)
    for (const { counter } of places) this.#hold(counter, source, started)
  }

  #freePlaces({ places }: Counters): number {
    const free = places.map(({ limit, counter }) => {
      const held = [...(this.#places.get(counter)?.values() ?? [])]
      return Math.max(0, limit.limit - held.reduce((total, messages) => total + messages, 0))
    })
    return Math.min(Number.POSITIVE_INFINITY, ...free)
  }

  #hold(counter: string, source: LeaseHolder, step: number): void {
    const holders = this.#places.get(counter) ?? new Map<LeaseHolder, number>()
    const held = (holders.get(source) ?? 0) + step
    if (held > 0) holders.set(source, held)
    else holders.delete(source)
    if (holders.size > 0) this.#places.set(counter, holders)
    else this.#places.delete(counter)
  }
}

function countersOf(limits: readonly Limit[], buckets: Buckets): Counters {
  const rates: Counted<RateLimit>[] = []
  const places: Counted<InFlightLimit>[] = []
  for (const [place, limit] of limits.entries()) {
    const counter = JSON.stringify([limit.name, buckets[place]])
    if (limit.kind === 'rate') rates.push({ limit, counter })
    else places.push({ limit, counter })
  }
  return { rates, places }
}
