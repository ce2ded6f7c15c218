import type { ConfiguredLimit } from '../consumer/settings.ts'
import type { StoredEvent } from '../engine.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { checkOptionNames, checkSwitch, invalidOption, oneOf, wholeNumber } from '../message/options.ts'
import type { DeliveredEvent } from './event.ts'

/** What becomes of the other messages of a key when one has failed for good. */
export interface OrderedOptions {
  /**
   * After its last attempt a message becomes a dead letter, and its key goes on with the next one (`dead-letter`, the
   * default); or the key is blocked (`block`): what follows waits until an operator redrives the dead letter, which then
   * goes first, or deletes it, which skips it. Other keys never wait.
   */
  readonly onExhausted?: 'dead-letter' | 'block'
}

/** How many messages may start within a time. */
export interface RateLimitOptions<Data = unknown> {
  /**
   * Messages that start in any stretch of `per`, at most: never more, and in the long run fewer. Where there are enough
   * of them, 95 % of the limit start; with batches 91 %.
   */
  readonly limit: number
  /** At least 1 ms. Below one second, the long run falls further behind: to 80 % from 20 to 200 ms. */
  readonly per: Duration
  /**
   * How many of them may start at once after a quiet time, 1 to `limit`. Default 1: starts are spread evenly. They are
   * taken from the same `limit`, so a larger burst makes the steady pace slower, `limit - burst + 1` each `per`.
   */
  readonly burst?: number
  /**
   * What the limit counts apart, such as a tenant: messages for which it returns equal text share a limit of their own.
   * When it throws or returns anything else, the message becomes a dead letter (`invalid`); an async function is refused.
   * Default: all share one.
   */
  readonly by?: (event: DeliveredEvent<Data>) => string
}

/** How many messages may be with handlers at the same time. */
export interface InFlightOptions<Data = unknown> {
  readonly limit: number
  /** As for `rateLimit`. */
  readonly by?: (event: DeliveredEvent<Data>) => string
}

const LIMITS_MAX = 10
/** How late a start may be, in milliseconds: somewhat more than a turn of a busy event loop takes. */
const GRACE_MS = 50
const GRACE_MS_MIN = 5
const GRACE_MS_MAX = 100
/** A permission that is not used after all holds a place in flight for as long. */
const BATCH_GRACE_MS_MAX = 10_000

const orderedNames = new Set(['onExhausted'])
const rateLimitNames = new Set(['limit', 'per', 'burst', 'by'])
const inFlightNames = new Set(['limit', 'by'])

/** Throws POSTHORN_INVALID_OPTION. */
export function readOrdered(ordered: boolean | OrderedOptions): false | Required<OrderedOptions> {
  if (ordered === false) return false
  const options = ordered === true ? {} : checkSwitch('ordered', ordered)
  checkOptionNames('ordered', options, orderedNames)
  const { onExhausted = 'dead-letter' } = options
  return { onExhausted: oneOf('ordered.onExhausted', onExhausted, ['dead-letter', 'block']) }
}

/** Throws POSTHORN_INVALID_OPTION. */
export function readLimits(
  rateLimit: RateLimitOptions | readonly RateLimitOptions[] = [],
  maxInFlight: number | InFlightOptions | readonly InFlightOptions[] = [],
  batch?: { readonly waitMs: number },
): readonly ConfiguredLimit[] {
  const inFlight = typeof maxInFlight === 'object' ? maxInFlight : { limit: maxInFlight }
  return [
    ...listOf('rateLimit', rateLimit).map((given, index) => readRateLimit(given, index, batch)),
    ...listOf('maxInFlight', inFlight).map((given, index) => readInFlight(given, index)),
  ]
}

function listOf<Options>(option: string, given: Options | readonly Options[]): readonly Options[] {
  if (!Array.isArray(given)) return [given as Options]
  if (given.length <= LIMITS_MAX) return given
  throw invalidOption(option, `there are ${given.length}; expected at most ${LIMITS_MAX}`)
}

function readRateLimit(
  given: RateLimitOptions,
  index: number,
  batch: { readonly waitMs: number } | undefined,
): ConfiguredLimit {
  checkOptionNames('rateLimit', given, rateLimitNames)
  const limit = wholeNumber('rateLimit.limit', given.limit, { min: 1 })
  const perMs = parseDuration(given.per, 'rateLimit.per', 1)
  return {
    kind: 'rate',
    name: nameOf('rate', index),
    limit,
    perMs,
    burst: wholeNumber('rateLimit.burst', given.burst ?? 1, { min: 1, max: limit }),
    graceMs: batch === undefined ? graceMsFor(perMs) : graceMsForBatches(perMs, batch.waitMs),
    ...readBy('rateLimit.by', given.by),
  }
}

function readInFlight(given: InFlightOptions, index: number): ConfiguredLimit {
  checkOptionNames('maxInFlight', given, inFlightNames)
  return {
    kind: 'inFlight',
    name: nameOf('in-flight', index),
    limit: wholeNumber('maxInFlight.limit', given.limit, { min: 1 }),
    ...readBy('maxInFlight.by', given.by),
  }
}

// What is allowed for late starts is paid for in pace: a twentieth of it, or up to a fifth where the time is so short
// that otherwise hardly a start would be in time beside a busy event loop.
function graceMsFor(perMs: number): number {
  const enough = Math.min(GRACE_MS, perMs / 4)
  return Math.max(GRACE_MS_MIN, enough, Math.min(GRACE_MS_MAX, perMs / 20))
}

// Permissions wait for each other for half of it (`Gathering`), so batches grow with it.
function graceMsForBatches(perMs: number, waitMs: number): number {
  const wantedMs = Math.min(BATCH_GRACE_MS_MAX, Math.max(2 * GRACE_MS, 2 * waitMs))
  return Math.max(graceMsFor(perMs), Math.min(perMs / 10, wantedMs))
}

/** The store tells limits apart by these names: reordering the options of a running subscription mixes them up. */
function nameOf(kind: string, index: number): string {
  return index === 0 ? kind : `${kind}-${index + 1}`
}

function readBy(option: string, by: unknown): { by?: (event: StoredEvent) => string } {
  if (by === undefined) return {}
  if (typeof by !== 'function') throw invalidOption(option, `it is ${describe(by)}; expected a function of the event`)
  if (Object.prototype.toString.call(by) !== '[object AsyncFunction]')
    return { by: by as (event: StoredEvent) => string }
  throw invalidOption(option, 'it is an async function; expected one that returns text at once')
}
