import type { RateLimit } from '../engine.ts'

/** Permissions are given this long before their time, so that asking need not keep up with starting. Milliseconds. */
export const HORIZON_MS = 100

/**
 * As above, for messages that count in several buckets. One that has to wait for its own bucket would reserve its place
 * in the others as far ahead, and those who could start before it would have to queue behind it.
 */
export const SHARED_HORIZON_MS = 15

/**
 * How long before the next start is possible a source is to ask again. The question and the permission both have to pass
 * event loops that may be busy, and what is asked too late is lost to the pace; so half of the horizon is left to them,
 * and the other half makes each answer worth its question.
 */
const LEAD_MS = HORIZON_MS / 2
const SHARED_LEAD_MS = 10

/**
 * Times are whole multiples of this part of a millisecond. Until the year 2109, floating-point numbers hold such times
 * exactly, so that no rounding error lets one message too many into a window.
 */
const PARTS_PER_MS = 2048

/**
 * The bucket of one rate limit as a single number, the time at which it is full again: the "generic cell rate algorithm"
 * (ITU-T I.371, in its form as a virtual schedule). Each start moves that time on by one interval, and is permitted from
 * `burst` - 1 intervals before it.
 *
 * That keeps the promise of `RateLimit`. Say the permitted times are p(1), p(2), ..., and T is the interval. A start at p
 * sets the time of the full bucket to p + T or later, and each one after it adds another T; so
 * p(i + k) >= p(i) + (k - burst + 1) T. Of `limit` + 1 messages the first and the last are at least
 * (limit - burst + 1) T apart, which with T = (perMs + graceMs) / (limit - burst + 1), rounded up, is perMs + graceMs.
 * Each may start up to `graceMs` after its time: then at least `perMs` are left between the two.
 */
export class TokenBucket {
  readonly #intervalMs: number
  readonly #toleranceMs: number
  #nextAtMs: number

  /** `stored`: what `nextAtMs` was; undefined for a full bucket. */
  constructor(
    { limit, perMs, burst, graceMs }: Omit<RateLimit, 'kind' | 'name'>,
    stored: number | undefined,
    nowMs: number,
  ) {
    this.#intervalMs = Math.ceil(((perMs + graceMs) / (limit - burst + 1)) * PARTS_PER_MS) / PARTS_PER_MS
    this.#toleranceMs = (burst - 1) * this.#intervalMs
    // It is never further ahead than this, unless the clock went back or the limit was raised.
    const latestMs = nowMs + HORIZON_MS + this.#toleranceMs + this.#intervalMs
    this.#nextAtMs = Math.min(stored ?? 0, latestMs)
  }

  get nextAtMs(): number {
    return this.#nextAtMs
  }

  /** The earliest time of the next start. */
  get earliestMs(): number {
    return this.#nextAtMs - this.#toleranceMs
  }

  /** A message starts at this time, which is not before `earliestMs`. */
  take(startMs: number): void {
    this.#nextAtMs = Math.max(this.#nextAtMs, startMs) + this.#intervalMs
  }
}

/**
 * Takes from all of the buckets what all of them have, up to `wanted` and to the horizon: returns when each message may
 * start, rising.
 */
export function takeStarts(buckets: readonly TokenBucket[], wanted: number, nowMs: number): number[] {
  const startsMs: number[] = []
  const untilMs = nowMs + (buckets.length > 1 ? SHARED_HORIZON_MS : HORIZON_MS)
  while (startsMs.length < wanted) {
    const startMs = earliestStartMs(buckets, nowMs)
    if (startMs > untilMs) break
    for (const bucket of buckets) bucket.take(startMs)
    startsMs.push(startMs)
  }
  return startsMs
}

/** When all of the buckets have something for the next message, not before `nowMs`. */
export function earliestStartMs(buckets: readonly TokenBucket[], nowMs: number): number {
  return buckets.reduce((latestMs, { earliestMs }) => Math.max(latestMs, earliestMs), nowMs)
}

/** When it is worth asking again for what `takeStarts` did not give. At least 1 ms. */
export function askAgainInMs(buckets: readonly TokenBucket[], nowMs: number): number {
  const leadMs = buckets.length > 1 ? SHARED_LEAD_MS : LEAD_MS
  return Math.max(1, Math.ceil(earliestStartMs(buckets, nowMs) - nowMs - leadMs))
}
