import type { Clock } from './clock.ts'

const MINUTE_MS = 60_000

/** Keeps what would be said all the time down to once a minute, whatever the wall clock is set to. */
export class OnceAMinute {
  readonly #clock: Clock
  #lastMs = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether it is to be said now. Then it is not, for a minute. */
  isDue(): boolean {
    const nowMs = this.#clock.elapsedMs()
    if (nowMs < this.#lastMs + MINUTE_MS) return false
    this.#lastMs = nowMs
    return true
  }
}
