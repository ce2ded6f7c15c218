import { type BreakerOptions, type BreakerSettings, readBreaker } from '../consumer/breaker/settings.ts'
import { type RetryOptions, readRetry } from '../consumer/retry-options.ts'
import type { RetryPolicy } from '../consumer/retry-policy.ts'
import type { ConfiguredLimit } from '../consumer/settings.ts'
import type { StartPosition } from '../engine.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, timeMs, wholeNumber } from '../message/options.ts'
import {
  type InFlightOptions,
  type OrderedOptions,
  type RateLimitOptions,
  readLimits,
  readOrdered,
} from './flow-options.ts'

/** How a subscription's handler is run; `Data` is what its events carry. */
export interface SubscribeOptions<Data = unknown> {
  /** Handler calls running at once in this process. Default 10, and 1 for transactional handlers. */
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
  /**
   * Messages of one key are handled one after the other, in the order in which they were stored: none is begun before
   * the one before it is settled for good, across retries, crashes and processes. A failing key holds back itself and
   * no other. Messages without a key, and those of different `priority`, have no order among themselves. Each partition
   * is served by one process at a time, so a topic's `partitions` are the most processes that share the work. With a
   * batch handler, a batch holds at most one message of a key. All processes must say the same. Default `false`.
   */
  readonly ordered?: boolean | OrderedOptions
  /**
   * Messages set aside at which no new ones are taken: those that wait for their next attempt, behind a failed one of
   * their key, or for a limit. They are taken again once there are fewer. 1 to 10,000,000, default 100,000.
   */
  readonly maxParked?: number
  /**
   * How many messages may start within a time, over all processes, whose options must be the same: several limits hold
   * together. Default: no limit.
   */
  readonly rateLimit?: RateLimitOptions<Data> | readonly RateLimitOptions<Data>[]
  /**
   * How many messages may be with handlers at the same time, over all processes. A number limits all of them together.
   * Default: no limit but each process's `concurrency`.
   */
  readonly maxInFlight?: number | InFlightOptions<Data> | readonly InFlightOptions<Data>[]
  /**
   * Stops calling the handler while what it depends on is down, and tries it with single messages until it is up again.
   * What fails meanwhile is not held against the message. `true` takes the defaults. Default `false`.
   */
  readonly breaker?: boolean | BreakerOptions
  /** See `TransactionalSubscribeOptions`. */
  readonly transactional?: false
}

/** As `SubscribeOptions`, for a handler that takes an array of events. */
export interface BatchSubscribeOptions<Data = unknown> extends SubscribeOptions<Data> {
  readonly batch: BatchOptions
}

/**
 * As `SubscribeOptions`, for a handler whose writes, what it publishes and the acknowledgement of its message commit in
 * one transaction: all or nothing, so that its effects in the database happen once.
 *
 * The handler writes with `context.tx`, the store's own connection on which a transaction is open, and publishes with
 * `{ tx: context.tx }` into topics that were used before (`post.ensureTopics`). When it throws, outruns its timeout or
 * has lost its lease, everything is rolled back. It must not begin, commit or roll back by itself.
 *
 * With `sqlite:` files, `tx` is a `DatabaseSync`. Nobody else can write to the file while such a handler runs, in no
 * process: await nothing slow in it. Handlers take turns, and the time that one waits for its turn counts as its own.
 *
 * With `postgres:`, `tx` is a client of `pg` (see `PostgresTransaction`), and handlers run side by side, each with a
 * connection of the pool, of which two are always left to Posthorn.
 *
 * `concurrency` is 1 unless it is given.
 */
export interface TransactionalSubscribeOptions<Data = unknown> extends Omit<SubscribeOptions<Data>, 'transactional'> {
  readonly transactional: true
}

export interface BatchOptions {
  /** Events that the handler is called with at most. It gets fewer, without waiting, once about 16 MiB are there. */
  readonly size: number
  /** How long the first event of a batch waits for more. Default 0: take what is there. */
  readonly wait?: Duration
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
  readonly ordered: false | Required<OrderedOptions>
  readonly maxParked: number
  readonly limits: readonly ConfiguredLimit[]
  readonly breaker: BreakerSettings | undefined
  readonly transactional: boolean
}

const ATTEMPTS_PRESET = 16

const optionNames = new Set([
  'concurrency',
  'timeout',
  'retry',
  'batch',
  'from',
  'maxCrashes',
  'ordered',
  'maxParked',
  'rateLimit',
  'maxInFlight',
  'breaker',
  'transactional',
])
const batchNames = new Set(['size', 'wait'])
const positionNames = new Set(['offset', 'partition'])

/** What `subscribe` may be given, of which types let through only what fits together. */
export interface UncheckedSubscribeOptions extends Omit<SubscribeOptions, 'transactional'> {
  readonly batch?: BatchOptions
  readonly transactional?: boolean
}

/** Throws POSTHORN_INVALID_OPTION. */
export function readSubscribeOptions(options: UncheckedSubscribeOptions): SubscriptionSettings {
  checkOptionNames('subscribe options', options, optionNames)
  const { timeout = '30s', retry = {}, from, maxCrashes = 3, maxParked = 100_000 } = options
  const batch = options.batch === undefined ? undefined : readBatch(options.batch)
  const transactional = readTransactional(options)
  const { concurrency = transactional ? 1 : 10, ordered = false, breaker = false } = options
  return {
    concurrency: wholeNumber('concurrency', concurrency, { min: 1, max: 100_000 }),
    timeoutMs: parseDuration(timeout, 'timeout', 1),
    retry: readRetry(retry, ATTEMPTS_PRESET),
    batch,
    start: from === undefined ? undefined : readPosition('from', from),
    maxCrashes: wholeNumber('maxCrashes', maxCrashes, { min: 1, max: 1_000 }),
    ordered: readOrdered(ordered),
    maxParked: wholeNumber('maxParked', maxParked, { min: 1, max: 10_000_000 }),
    limits: readLimits(options.rateLimit, options.maxInFlight, batch),
    breaker: readBreaker(breaker),
    transactional,
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

function readTransactional({ transactional = false, batch }: UncheckedSubscribeOptions): boolean {
  if (typeof transactional !== 'boolean') {
    throw invalidOption('transactional', `it is ${describe(transactional)}; expected true or false`)
  }
  if (transactional && batch !== undefined) {
    throw invalidOption('transactional', 'batch is given as well; a transaction holds one message')
  }
  return transactional
}

function readBatch(batch: BatchOptions): { size: number; waitMs: number } {
  checkOptionNames('batch', batch, batchNames)
  const { size, wait = 0 } = batch
  return { size: wholeNumber('batch.size', size, { min: 1, max: 10_000 }), waitMs: parseDuration(wait, 'batch.wait') }
}
