import { setImmediate } from 'node:timers/promises'
import type { Clock, Timer } from '../environment/index.ts'

interface PendingTimer {
  readonly dueAtMs: number
  readonly callback: () => void
}

const START_MS = Date.UTC(2026, 0, 1)

// What a timer sets off often goes through a promise and an event before it sets the next timer.
const TURNS_BETWEEN_TIMERS = 2

/**
 * A clock that stands still until it is told to move.
 *
 * Its timers are kept in the order in which they fire: by due time, then by the order in which they were set. `advance`
 * stops at each timer's time, so a callback sees the time that it asked for, and lets waiting code run before it goes
 * on, so that a timer set by that code within the same span fires too. A callback that throws stops the advance there.
 */
export class VirtualClock implements Clock {
  readonly real = false
  readonly #timers: PendingTimer[] = []
  #nowMs: number

  /** `startMs`: milliseconds since the epoch; by default the first instant of 2026. */
  constructor(startMs: number = START_MS) {
    this.#nowMs = startMs
  }

  now(): number {
    return this.#nowMs
  }

  elapsedMs(): number {
    return this.#nowMs
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer: PendingTimer = { dueAtMs: this.#nowMs + Math.max(0, delayMs), callback }
    const later = this.#timers.findIndex((other) => other.dueAtMs > timer.dueAtMs)
    this.#timers.splice(later === -1 ? this.#timers.length : later, 0, timer)
    return { cancel: () => this.#remove(timer) }
  }

  /** Moves time on by `durationMs` milliseconds and fires what falls due on the way. */
  async advance(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs
    await runWaitingCode()
    for (let timer = this.#takeDue(untilMs); timer; timer = this.#takeDue(untilMs)) {
      this.#nowMs = Math.max(this.#nowMs, timer.dueAtMs)
      timer.callback()
      await runWaitingCode()
    }
    this.#nowMs = Math.max(this.#nowMs, untilMs)
    await runWaitingCode()
  }

  #takeDue(untilMs: number): PendingTimer | undefined {
    const first = this.#timers[0]
    return first && first.dueAtMs <= untilMs ? this.#timers.shift() : undefined
  }

  #remove(timer: PendingTimer): void {
    const position = this.#timers.indexOf(timer)
    if (position !== -1) this.#timers.splice(position, 1)
  }
}

async function runWaitingCode(): Promise<void> {
  for (let turn = 0; turn < TURNS_BETWEEN_TIMERS; turn++) await setImmediate()
}
