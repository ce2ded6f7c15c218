/**
 * Notices that the event loop was blocked, and says which handlers ran meanwhile. One timer per connection, set every
 * 100 ms as long as a consumer is registered: when it fires more than a second late, the loop did nothing else in
 * between. Only on a real clock: a virtual one is late when its owner wants it to be.
 */
import type { Environment, Timer } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'

const INTERVAL_MS = 100
const LATE_MS = 1_000

/** A subscription whose handlers may block the event loop. */
export interface Watched {
  readonly name: string
  /** Whether one of its handlers runs, or ended at or after `timeMs` of `Clock.elapsedMs`. */
  ranSince(timeMs: number): boolean
}

export class EventLoopWatch {
  readonly #environment: Environment
  readonly #watched = new Set<Watched>()
  #timer: Timer | undefined

  constructor(environment: Environment) {
    this.#environment = environment
  }

  /** Returns what ends the registration. */
  register(watched: Watched): () => void {
    this.#watched.add(watched)
    if (this.#timer === undefined && this.#environment.clock.real) this.#setTimer()
    return () => this.#remove(watched)
  }

  #remove(watched: Watched): void {
    this.#watched.delete(watched)
    if (this.#watched.size > 0) return
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #setTimer(): void {
    const { clock } = this.#environment
    const expectedMs = clock.elapsedMs() + INTERVAL_MS
    this.#timer = clock.setTimer(INTERVAL_MS, () => {
      this.#setTimer()
      const blockedMs = Math.round(clock.elapsedMs() - expectedMs)
      if (blockedMs > LATE_MS) this.#report(blockedMs, expectedMs)
    })
  }

  // The guilty handler still ran, or came to its end, after the timer should have fired.
  #report(blockedMs: number, sinceMs: number): void {
    const names = [...this.#watched].filter((watched) => watched.ranSince(sinceMs)).map((watched) => watched.name)
    const handlers = names.join(', ') || 'none'
    const error = new PosthornError('POSTHORN_EVENT_LOOP_BLOCKED', { blockedMs, handlers })
    this.#environment.logger.warn(error.message, { code: error.code, blockedMs, handlers })
  }
}
