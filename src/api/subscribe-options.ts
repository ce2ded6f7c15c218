import type { RetryPolicy } from '../consumer/retry-policy.ts'
import type { StartPosition } from '../engine.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, oneOf, timeMs, wholeNumber } from '../message/options.ts'

/** How a subscription's handler is run. */
export interface SubscribeOptions {
  /** Handler calls running at once in this process. Default 10. */
  readonly concurrency?: number
  /** How long one handler call may take before its signal aborts and the attempt has failed. Default `'30s'`. */
  readonly timeout?: Duration
  /** What happens to a message whose handler failed. */
  readonly retry?: RetryOptions
  /**
   * Where a new subscription starts; an existing one keeps its position. Default: `latest`, or `earliest` when the
   * topic has never had a subscription.
   */
  readonly from?: From
  /**
   * After how many deaths of its process a message becomes a dead letter (`crashed`), 1 to 1,000. From one death less
   * on, and after its first at the soonest, it is delivered alone, so that no innocent message goes with it. Default 3.
   */
  readonly maxCrashes?: number
}

/** As `SubscribeOptions`, for a handler that takes an array of events. */
export interface BatchSubscribeOptions extends SubscribeOptions {
  readonly batch: BatchOptions
}

export interface BatchOptions {
  /** Events that the handler is called with at most. It gets fewer, without waiting, once about 16 MiB are there. */
  readonly size: number
  /** How long the first event of a batch waits for more. Default 0: take what is there. */
  readonly wait?: Duration
}

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
  /** The longest delay. Default `'10m'`. */
  readonly max?: Duration
  /** `full`, the default, draws each delay evenly between 0 and what the type gives. */
  readonly jitter?: 'full' | 'none'
}

/** A place in a topic: one of its ends, a time of publishing, or an offset (of every partition, unless one is named). */
export type From = 'earliest' | 'latest' | Date | { readonly offset: number; readonly partition?: number }

/** Subscribe options, checked, with every default filled in. */
export interface SubscriptionSettings {
  readonly concurrency: number
  readonly timeoutMs: number
  readonly retry: RetryPolicy
  readonly batch: { readonly size: number; readonly waitMs: number } | undefined
  readonly start: StartPosition | undefined
  readonly maxCrashes: number
}

const optionNames = new Set(['concurrency', 'timeout', 'retry', 'batch', 'from', 'maxCrashes'])
const retryNames = new Set(['attempts', 'backoff'])
const backoffNames = new Set(['type', 'delay', 'max', 'jitter'])
const batchNames = new Set(['size', 'wait'])
const positionNames = new Set(['offset', 'partition'])

/** Throws POSTHORN_INVALID_OPTION. */
export function readSubscribeOptions(options: SubscribeOptions | BatchSubscribeOptions): SubscriptionSettings {
  checkOptionNames('subscribe options', options, optionNames)
  const { concurrency = 10, timeout = '30s', retry = {}, from, maxCrashes = 3 } = options
  const batch = 'batch' in options ? options.batch : undefined
  return {
    concurrency: wholeNumber('concurrency', concurrency, { min: 1, max: 100_000 }),
    timeoutMs: parseDuration(timeout, 'timeout', 1),
    retry: readRetry(retry),
    batch: batch === undefined ? undefined : readBatch(batch),
    start: from === undefined ? undefined : readPosition('from', from),
    maxCrashes: wholeNumber('maxCrashes', maxCrashes, { min: 1, max: 1_000 }),
  }
}

/** The place in a topic that was given for `option`. Throws POSTHORN_INVALID_OPTION. */
export function readPosition(option: string, from: From): StartPosition {
  if (from instanceof Date) return { timeMs: timeMs(option, from) }
  if (from === 'earliest' || from === 'latest') return { at: from }
  if (typeof from !== 'object' || from === null) {
    throw invalidOption(
      option,
      `it is ${describe(from)}; expected 'earliest', 'latest', a Date or { offset, partition? }`,
    )
  }
  checkOptionNames(option, from, positionNames)
  const offset = wholeNumber(`${option}.offset`, from.offset, { min: 0 })
  if (from.partition === undefined) return { offset }
  return { offset, partition: wholeNumber(`${option}.partition`, from.partition, { min: 0 }) }
}

function readRetry(retry: RetryOptions): RetryPolicy {
  checkOptionNames('retry', retry, retryNames)
  const { attempts = 16, backoff = {} } = retry
  checkOptionNames('retry.backoff', backoff, backoffNames)
  const { type = 'exponential', delay = '1s', max = '10m', jitter = 'full' } = backoff
  return {
    attempts: wholeNumber('retry.attempts', attempts, { min: 1, max: 1_000 }),
    backoff: {
      type: oneOf('retry.backoff.type', type, ['exponential', 'linear', 'fixed']),
      delayMs: parseDuration(delay, 'retry.backoff.delay'),
      maxMs: parseDuration(max, 'retry.backoff.max'),
      jitter: oneOf('retry.backoff.jitter', jitter, ['full', 'none']),
    },
  }
}

function readBatch(batch: BatchOptions): { size: number; waitMs: number } {
  checkOptionNames('batch', batch, batchNames)
  const { size, wait = 0 } = batch
  return { size: wholeNumber('batch.size', size, { min: 1, max: 10_000 }), waitMs: parseDuration(wait, 'batch.wait') }
}
