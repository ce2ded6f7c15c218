/** A timer that has been set and can be taken back. */
export interface Timer {
  cancel(): void
}

export interface TimerOptions {
  /** The process does not end while the timer is set. Default `false`. */
  readonly keepsProcessAlive?: boolean
}

/**
 * The only source of time in Posthorn. Injected everywhere so that tests and simulations can hold and step time;
 * lint bans the bare globals outside this folder.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch, whole. */
  now(): number
  /** Milliseconds since some moment of the past. Never goes back, whatever is done to the wall clock: for durations. */
  elapsedMs(): number
  /** Runs `callback` once, `delayMs` milliseconds from now. The timer does not keep the process alive, unless told to. */
  setTimer(delayMs: number, callback: () => void, options?: TimerOptions): Timer
  /** `true` when time passes by itself. A virtual clock, which moves only when told to, says `false`. */
  readonly real: boolean
}

// Node fires a timer at once, with a warning, when its delay does not fit in 32 bits.
const TIMER_DELAY_MS_MAX = 2 ** 31 - 1

/** The machine's wall clock, its monotonic clock, and Node's timers. */
export const systemClock: Clock = {
  real: true,
  now: () => Date.now(),
  elapsedMs: () => performance.now(),
  setTimer(delayMs, callback, { keepsProcessAlive = false } = {}) {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), TIMER_DELAY_MS_MAX))
    if (!keepsProcessAlive) timer.unref()
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
