import type { Clock, Timer } from '../../../environment/index.ts'

/**
 * Does something again and again, never twice at once. The timer is set anew when it fires, not when the round is over:
 * so a clock that is moved on in steps finds it set. What is asked for while a round is under way is done after it.
 * Stopped is final.
 */
export class Rounds {
  readonly #clock: Clock
  readonly #round: () => Promise<number>
  #everyMs = Number.POSITIVE_INFINITY
  #timer: Timer | undefined
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  #stopped = false

  /** `round` resolves with the milliseconds until the next one, and never rejects. */
  constructor(clock: Clock, round: () => Promise<number>) {
    this.#clock = clock
    this.#round = round
  }

  /** The first round is after `everyMs`. */
  start(everyMs: number): void {
    this.#set(everyMs)
  }

  /** Begins a round, and resolves when it is over. */
  now(): Promise<void> {
    if (this.#stopped) return this.idle()
    if (!this.#running) return this.#run()
    this.#next ??= this.#running.then(() => {
      this.#next = undefined
      return this.#stopped ? undefined : this.#run()
    })
    return this.#next
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await (this.#next ?? this.#running)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.idle()
  }

  #run(): Promise<void> {
    this.#running = this.#round().then((nextMs) => {
      this.#running = undefined
      if (nextMs !== this.#everyMs) this.#set(nextMs)
    })
    return this.#running
  }

  #set(everyMs: number): void {
    this.#everyMs = everyMs
    this.#timer?.cancel()
    if (this.#stopped) return
    this.#timer = this.#clock.setTimer(everyMs, () => {
      this.#set(this.#everyMs)
      void this.now()
    })
  }
}
