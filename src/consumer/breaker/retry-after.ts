import { RetryAfter } from '../outcomes.ts'
import { isInstance, propertyOf } from '../settlement/failure.ts'
import { errorsIn } from './is-outage.ts'

// Longer waits are mistakes, or limits that no waiting process should sit out.
const RETRY_AFTER_MS_MAX = 3_600_000

/**
 * How long, in whole milliseconds from `nowMs` on, the downstream asked to be left alone: a thrown RetryAfter's delay, or what
 * the error, a cause of it, or its response has as `retryAfter` (seconds) or as the header Retry-After (seconds or a
 * date). 0 when there is nothing of the kind; an hour at most.
 */
export function retryAfterMs(error: unknown, nowMs: number): number {
  const asked = errorsIn(error).flatMap((one) => [one, propertyOf(one, 'response')])
  const longestMs = asked.reduce<number>((longest, one) => Math.max(longest, askedBy(one, nowMs)), 0)
  return Math.min(Math.ceil(longestMs), RETRY_AFTER_MS_MAX)
}

function askedBy(holder: unknown, nowMs: number): number {
  if (isInstance(holder, RetryAfter)) return holder.delayMs
  const seconds = propertyOf(holder, 'retryAfter')
  if (typeof seconds === 'number') return millisecondsOf(seconds)
  const header = headerIn(propertyOf(holder, 'headers'))
  return typeof header === 'string' ? parse(header.trim(), nowMs) : millisecondsOf(header)
}

function headerIn(headers: unknown): unknown {
  const plain = propertyOf(headers, 'retry-after')
  if (plain !== undefined) return plain
  const get = propertyOf(headers, 'get')
  if (typeof get !== 'function') return undefined
  try {
    return get.call(headers, 'retry-after')
  } catch {
    return undefined
  }
}

function parse(header: string, nowMs: number): number {
  if (/^\d+(\.\d+)?$/.test(header)) return millisecondsOf(Number(header))
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? 0 : Math.max(0, atMs - nowMs)
}

function millisecondsOf(seconds: unknown): number {
  return typeof seconds === 'number' && seconds > 0 ? Math.min(seconds * 1_000, RETRY_AFTER_MS_MAX) : 0
}
