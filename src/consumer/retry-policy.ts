import type { Random } from '../environment/index.ts'

/** When a failed message is tried again, and how often. */
export interface RetryPolicy {
  /** Attempts in all, the first included; after the last failure the message becomes a dead letter. */
  readonly attempts: number
  readonly backoff: Backoff
}

export interface Backoff {
  /** How the delay grows with the attempts: doubling, by `delayMs` each time, or not at all. */
  readonly type: 'exponential' | 'linear' | 'fixed'
  /** The delay after the first failure, in milliseconds. */
  readonly delayMs: number
  /** No delay is longer, in milliseconds. */
  readonly maxMs: number
  /** `full` draws each delay evenly between 0 and what the type gives, so that what failed together comes back apart. */
  readonly jitter: 'full' | 'none'
}

// Doubling beyond this loses precision and, with a delay of 0, ends in 0 * Infinity.
const DOUBLINGS_MAX = 52

/** Whole milliseconds to wait after attempt number `attempt` (1 is the first) has failed. */
export function retryDelayMs(backoff: Backoff, attempt: number, random: Random): number {
  const ceilingMs = Math.min(backoff.maxMs, grownDelayMs(backoff, attempt))
  return Math.ceil(backoff.jitter === 'full' ? ceilingMs * random.number() : ceilingMs)
}

function grownDelayMs({ type, delayMs }: Backoff, attempt: number): number {
  switch (type) {
    case 'exponential':
      return delayMs * 2 ** Math.min(attempt - 1, DOUBLINGS_MAX)
    case 'linear':
      return delayMs * attempt
    case 'fixed':
      return delayMs
  }
}

const OUTAGE_DELAY_MS = 100
const OUTAGE_DELAY_MS_MAX = 5_000

/** How long to wait before the engine is asked again after it failed `failures` times in a row. */
export function outageDelayMs(failures: number): number {
  return Math.min(OUTAGE_DELAY_MS_MAX, OUTAGE_DELAY_MS * 2 ** Math.min(failures - 1, DOUBLINGS_MAX))
}
