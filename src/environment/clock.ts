/** A timer that has been set and can be taken back. */
export interface Timer {
  cancel(): void
}

/**
 * The only source of time in Posthorn. Injected everywhere so that tests and simulations can hold and step time;
 * lint bans the bare globals outside this folder.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch, whole. */
  now(): number
  /** Runs `callback` once, `delayMs` milliseconds from now. The timer does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer
  /** `true` when time passes by itself. A virtual clock, which moves only when told to, says `false`. */
  readonly real: boolean
}

// Node fires a timer at once, with a warning, when its delay does not fit in 32 bits.
const TIMER_DELAY_MS_MAX = 2 ** 31 - 1

/** The machine's wall clock and Node's timers. */
export const systemClock: Clock = {
  real: true,
  now: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), TIMER_DELAY_MS_MAX))
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}

/** Resolves after `delayMs`, or as soon as `signal` aborts; never rejects. */
export function pause(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const finish = () => {
      timer.cancel()
      signal?.removeEventListener('abort', finish)
      resolve()
    }
    const timer = clock.setTimer(delayMs, finish)
    signal?.addEventListener('abort', finish, { once: true })
  })
}
