/**
 * Keeps handlers from beginning messages that may be somebody else's by now. A process that was stopped for longer than
 * its lease finds its timers and its finished handlers before it hears from the engine what became of its messages.
 *
 * States: open; shut, from the end of the lease on, until the engine has renewed it, or has said that it is lost and taken
 * a new one. While it is shut, a timer looks again.
 */
import type { Source } from '../../engine.ts'
import type { Clock, Timer } from '../../environment/index.ts'

const LOOK_INTERVAL_MS = 50

export class LeaseGate {
  readonly #source: Pick<Source, 'leasedUntilMs'>
  readonly #clock: Clock
  #timer: Timer | undefined

  constructor(source: Pick<Source, 'leasedUntilMs'>, clock: Clock) {
    this.#source = source
    this.#clock = clock
  }

  /** Whether a message may be begun now. If not, `onLook` is called when it is worth asking again. */
  isOpen(nowMs: number, onLook: () => void): boolean {
    if (nowMs < this.#source.leasedUntilMs) return true
    this.#timer ??= this.#clock.setTimer(LOOK_INTERVAL_MS, () => {
      this.#timer = undefined
      onLook()
    })
    return false
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
