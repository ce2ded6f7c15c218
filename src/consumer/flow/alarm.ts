import type { Clock, Timer } from '../../environment/index.ts'

/** One timer, set for the earliest of the moments that it was asked for. */
export class Alarm {
  readonly #clock: Clock
  readonly #onTime: () => void
  #timer: Timer | undefined
  #atMs = Number.POSITIVE_INFINITY

  constructor(clock: Clock, onTime: () => void) {
    this.#clock = clock
    this.#onTime = onTime
  }

  /** Calls at `atMs` of `Clock.elapsedMs`, or before. At infinity, and when it is set for an earlier moment, does nothing. */
  setBy(atMs: number): void {
    if (atMs >= this.#atMs) return
    this.#timer?.cancel()
    this.#atMs = atMs
    this.#timer = this.#clock.setTimer(Math.max(0, atMs - this.#clock.elapsedMs()), () => {
      this.#timer = undefined
      this.#atMs = Number.POSITIVE_INFINITY
      this.#onTime()
    })
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#atMs = Number.NEGATIVE_INFINITY
  }
}
