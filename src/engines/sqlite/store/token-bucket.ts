import type { RateLimit } from '../../../engine.ts'

/** Permissions are given this long before their time, so that asking need not keep up with starting. Milliseconds. */
export const HORIZON_MS = 100

/**
 * Times are whole multiples of this part of a millisecond. Until the year 2109, floating-point numbers hold such times
 * exactly, so that no rounding error lets one message too many into a window.
 */
const PARTS_PER_MS = 2048

/**
 * The bucket of one rate limit as a single number, the time at which it is full again (the "generic cell rate
 * algorithm"): each start moves it on by one interval, and is allowed from `burst` - 1 intervals before it.
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
