import type { Clock, Timer } from '../../src/environment/index.ts'

/**
 * One process's view of the clock that all processes of a test share. While it is stopped, as for a process whose
 * event loop is blocked or that is dead, it stands still, and timers that fall due wait until it goes on.
 */
export class ProcessClock implements Clock {
  readonly real = false
  readonly #shared: Clock
  readonly #overdue: (() => void)[] = []
  #stoppedAtMs: number | undefined

  constructor(shared: Clock) {
    this.#shared = shared
  }

  now(): number {
    return this.#stoppedAtMs ?? this.#shared.now()
  }

  elapsedMs(): number {
    return this.now()
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.#shared.setTimer(delayMs, () => {
      if (this.#stoppedAtMs === undefined) callback()
      else this.#overdue.push(callback)
    })
  }

  stop(): void {
    this.#stoppedAtMs ??= this.#shared.now()
  }

  goOn(): void {
    this.#stoppedAtMs = undefined
    for (const callback of this.#overdue.splice(0)) callback()
  }
}
