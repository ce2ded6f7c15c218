/**
 * How much a consumer takes ahead of its handlers: about 100 ms of work. Less, and handlers wait for storage; more,
 * and one process sits on messages that another could be working on.
 *
 * A consumer of slow jobs (above 100 ms on average) keeps one message ahead, whatever its concurrency, and so does a
 * consumer whose pace is not known yet: its first finished handlers, moments later, tell.
 */

const WORK_AHEAD_MS = 100
// Twice the largest record batch. More makes handlers no faster, and gives the garbage collector more to copy.
const AHEAD_MAX = 2_048
const UNKNOWN = -1
const WEIGHT_OF_NEWEST = 1 / 16

/** Exponentially weighted moving average of what one handler call takes. */
export class DurationAverage {
  /** Milliseconds; negative as long as nothing was observed. */
  averageMs = UNKNOWN

  observe(durationMs: number): void {
    if (this.averageMs === UNKNOWN) this.averageMs = durationMs
    else this.averageMs += (durationMs - this.averageMs) * WEIGHT_OF_NEWEST
  }
}

export interface Pace {
  /** Of one handler call; negative while unknown. */
  readonly averageMs: number
  /** Handler calls at once. */
  readonly concurrency: number
  /** Messages that one handler call takes. */
  readonly callSize: number
}

/** Messages to keep buffered, not counting those that free handlers take at once. */
export function messagesAhead({ averageMs, concurrency, callSize }: Pace): number {
  const slowOrUnknown = averageMs < 0 || averageMs > WORK_AHEAD_MS
  if (slowOrUnknown) return callSize
  const calls = (concurrency * WORK_AHEAD_MS) / Math.max(averageMs, Number.EPSILON)
  return Math.max(callSize, Math.min(AHEAD_MAX, Math.ceil(calls * callSize)))
}

/** Messages to ask the engine for. */
export function messagesWanted(pace: Pace, running: number, buffered: number): number {
  const freeHandlers = Math.max(0, pace.concurrency - running)
  const held = messagesAhead(pace) + freeHandlers * pace.callSize
  return Math.max(0, Math.min(held, Math.max(AHEAD_MAX, pace.callSize)) - buffered)
}

/**
 * Messages to ask for at least, when `blocked` ones were fetched and cannot start: as many again, so that those that can
 * are soon found.
 */
export function lookAhead(blocked: number): number {
  return Math.min(blocked, AHEAD_MAX)
}

/**
 * The number of buffered messages below which the engine is asked again: half of what is kept ahead, or half of what
 * the last pull brought where that was less. The second bounds memory: a pull that was cut short by its size in bytes
 * is not followed by another before half of those messages are on their way.
 */
export function refillBelow(pace: Pace, lastPulled: number): number {
  return Math.max(pace.callSize, Math.ceil(Math.min(messagesAhead(pace), lastPulled) / 2))
}
