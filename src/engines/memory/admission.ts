import type {
  Admission,
  AdmissionDemand,
  Buckets,
  FinishedMessages,
  InFlightLimit,
  Limit,
  RateLimit,
} from '../../engine.ts'
import type { LeaseHolder } from './leases.ts'

/** Permissions are given this long before their time, so that asking need not keep up with starting. */
const HORIZON_MS = 100
const ASK_FOR_PLACES_MS = 25

// Intervals are rounded up to whole parts of this size, so that times are exact and no rounding adds up to a message.
const PARTS_PER_MS = 1024

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
 * which the bucket is full again (the "generic cell rate algorithm"): each start moves it on by one interval, and is
 * allowed from `burst` - 1 intervals before it. Of each bucket of a limit of messages in flight it keeps how many places
 * each source holds. What is not there stands for a full bucket, or for no places.
 */
export class Admissions {
  readonly #fullAtMs = new Map<string, number>()
  readonly #places = new Map<string, Map<LeaseHolder, number>>()

  admit(source: LeaseHolder, limits: readonly Limit[], demand: AdmissionDemand, nowMs: number): Admission {
    const counters = countersOf(limits, demand.buckets)
    const wanted = Math.min(demand.starts, this.#freePlaces(counters))
    const startsInMs: number[] = []
    while (startsInMs.length < wanted) {
      const startMs = this.#nextStartMs(counters, nowMs)
      if (startMs > nowMs + HORIZON_MS) break
      for (const rate of counters.rates) this.#takeToken(rate, startMs, nowMs)
      startsInMs.push(startMs - nowMs)
    }
    for (const { counter } of counters.places) this.#hold(counter, source, startsInMs.length)
    const placesInMs = this.#freePlaces(counters) === 0 ? ASK_FOR_PLACES_MS : 1
    return { startsInMs, againInMs: Math.max(placesInMs, Math.ceil(this.#nextStartMs(counters, nowMs) - nowMs)) }
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

  #nextStartMs({ rates }: Counters, nowMs: number): number {
    const starts = rates.map((rate) => this.#fullAt(rate, nowMs) - toleranceMs(rate.limit))
    return Math.max(nowMs, ...starts)
  }

  #takeToken(rate: Counted<RateLimit>, startMs: number, nowMs: number): void {
    this.#fullAtMs.set(rate.counter, Math.max(this.#fullAt(rate, nowMs), startMs) + intervalMs(rate.limit))
  }

  // Never further ahead than starts can have moved it, unless the clock went back or the limit was raised.
  #fullAt({ limit, counter }: Counted<RateLimit>, nowMs: number): number {
    const latestMs = nowMs + HORIZON_MS + toleranceMs(limit) + intervalMs(limit)
    return Math.min(this.#fullAtMs.get(counter) ?? nowMs, latestMs)
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

function intervalMs({ limit, perMs, burst, graceMs }: RateLimit): number {
  return Math.ceil(((perMs + graceMs) / (limit - burst + 1)) * PARTS_PER_MS) / PARTS_PER_MS
}

function toleranceMs(limit: RateLimit): number {
  return (limit.burst - 1) * intervalMs(limit)
}
