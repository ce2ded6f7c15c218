import { type Duration, parseDuration } from '../message/duration.ts'

/** Thrown by a handler: this message will never succeed, so it goes to the dead letters at once, without retries. */
export class Discard extends Error {
  override readonly name = 'Discard'
  constructor(reason: string, options?: { cause?: unknown }) {
    super(reason, options)
  }
}

/**
 * Thrown by a handler: try again after `delay` from now, whatever the retry policy says; the attempt counts. Its
 * constructor throws POSTHORN_INVALID_OPTION when `delay` is not a duration, and the attempt has failed with that.
 */
export class RetryAfter extends Error {
  override readonly name = 'RetryAfter'
  readonly delayMs: number
  constructor(delay: Duration, options?: { reason?: string; cause?: unknown }) {
    const delayMs = parseDuration(delay, 'delay')
    super(options?.reason ?? `The handler asked to be called again in ${delay}.`, { cause: options?.cause })
    this.delayMs = delayMs
  }
}
