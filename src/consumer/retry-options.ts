import { type Duration, parseDuration } from '../message/duration.ts'
import { checkOptionNames, oneOf, wholeNumber } from '../message/options.ts'
import type { Backoff, RetryPolicy } from './retry-policy.ts'

export interface RetryOptions {
  /** Attempts in all, the first included. Default 16. */
  readonly attempts?: number
  readonly backoff?: BackoffOptions
}

export interface BackoffOptions {
  /** How the delay grows with the attempts. Default `exponential`. */
  readonly type?: 'exponential' | 'linear' | 'fixed'
  /** The delay after the first failure. Default `'1s'`. */
  readonly delay?: Duration
  /** The longest delay. Default `'10m'`, or `delay` if that is longer. */
  readonly max?: Duration
  /** `full`, the default, draws each delay evenly between 0 and what the type gives. */
  readonly jitter?: 'full' | 'none'
}

const ATTEMPTS_MAX = 1_000

const retryNames = new Set(['attempts', 'backoff'])
const MAX_MS = 600_000
const backoffNames = new Set(['type', 'delay', 'max', 'jitter'])

/** Throws POSTHORN_INVALID_OPTION. `attemptsPreset`: the attempts when none are given; undefined if they must be. */
export function readRetry(retry: RetryOptions, attemptsPreset: number | undefined): RetryPolicy {
  checkOptionNames('retry', retry, retryNames)
  const { attempts = attemptsPreset, backoff = {} } = retry
  return {
    attempts: wholeNumber('retry.attempts', attempts, { min: 1, max: ATTEMPTS_MAX }),
    backoff: readBackoff(backoff),
  }
}

function readBackoff(backoff: BackoffOptions): Backoff {
  checkOptionNames('retry.backoff', backoff, backoffNames)
  const { type = 'exponential', delay = '1s', max, jitter = 'full' } = backoff
  const delayMs = parseDuration(delay, 'retry.backoff.delay')
  return {
    type: oneOf('retry.backoff.type', type, ['exponential', 'linear', 'fixed']),
    delayMs,
    maxMs: max === undefined ? Math.max(MAX_MS, delayMs) : parseDuration(max, 'retry.backoff.max'),
    jitter: oneOf('retry.backoff.jitter', jitter, ['full', 'none']),
  }
}
