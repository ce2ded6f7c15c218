import type { ConfiguredLimit } from '../consumer/settings.ts'
import type { StoredEvent } from '../engine.ts'
import { type Duration, describe, parseDuration } from '../message/duration.ts'
import { checkOptionNames, invalidOption, oneOf, wholeNumber } from '../message/options.ts'
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
  /** Messages that start in any stretch of `per`, at most: never more, and in the long run up to 10 % fewer. */
  readonly limit: number
  /** At least 1 ms; below 50 ms the long run falls further behind. */
  readonly per: Duration
  /**
   * How many of them may start at once after a quiet time, 1 to `limit`. Default 1: starts are spread evenly. They are
   * taken from the same `limit`, so a larger burst makes the steady pace slower, `limit - burst + 1` each `per`.
   */
  readonly burst?: number
  /**
   * What the limit counts apart, such as a tenant: messages for which it returns equal text share a limit of their own.
   * When it throws or returns anything else, the message becomes a dead letter (`invalid`). Default: all share one.
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
const GRACE_MS_MIN = 5
const GRACE_MS_MAX = 100

const orderedNames = new Set(['onExhausted'])
const rateLimitNames = new Set(['limit', 'per', 'burst', 'by'])
const inFlightNames = new Set(['limit', 'by'])

/** Throws POSTHORN_INVALID_OPTION. */
export function readOrdered(ordered: boolean | OrderedOptions): false | Required<OrderedOptions> {
  if (ordered === false) return false
  const options = ordered === true ? {} : ordered
  checkOptionNames('ordered', options, orderedNames)
  const { onExhausted = 'dead-letter' } = options
  return { onExhausted: oneOf('ordered.onExhausted', onExhausted, ['dead-letter', 'block']) }
}

/** Throws POSTHORN_INVALID_OPTION. */
export function readLimits(
  rateLimit: RateLimitOptions | readonly RateLimitOptions[] = [],
  maxInFlight: number | InFlightOptions | readonly InFlightOptions[] = [],
): readonly ConfiguredLimit[] {
  const inFlight = typeof maxInFlight === 'object' ? maxInFlight : { limit: maxInFlight }
  return [
    ...listOf('rateLimit', rateLimit).map((given, index) => readRateLimit(given, index)),
    ...listOf('maxInFlight', inFlight).map((given, index) => readInFlight(given, index)),
  ]
}

function listOf<Options>(option: string, given: Options | readonly Options[]): readonly Options[] {
  if (!Array.isArray(given)) return [given as Options]
  if (given.length <= LIMITS_MAX) return given
  throw invalidOption(option, `there are ${given.length}; expected at most ${LIMITS_MAX}`)
}

function readRateLimit(given: RateLimitOptions, index: number): ConfiguredLimit {
  checkOptionNames('rateLimit', given, rateLimitNames)
  const limit = wholeNumber('rateLimit.limit', given.limit, { min: 1 })
  const perMs = parseDuration(given.per, 'rateLimit.per', 1)
  return {
    kind: 'rate',
    name: nameOf('rate', index),
    limit,
    perMs,
    burst: wholeNumber('rateLimit.burst', given.burst ?? 1, { min: 1, max: limit }),
    graceMs: graceMsFor(perMs),
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

// Starts are late by the event loop's moods. What is allowed for them is paid for in pace, so it is a fiftieth of it.
function graceMsFor(perMs: number): number {
  return Math.min(GRACE_MS_MAX, Math.max(GRACE_MS_MIN, perMs / 50))
}

/** The store tells limits apart by these names: reordering the options of a running subscription mixes them up. */
function nameOf(kind: string, index: number): string {
  return index === 0 ? kind : `${kind}-${index + 1}`
}

function readBy(option: string, by: unknown): { by?: (event: StoredEvent) => string } {
  if (by === undefined) return {}
  if (typeof by === 'function') return { by: by as (event: StoredEvent) => string }
  throw invalidOption(option, `it is ${describe(by)}; expected a function of the event`)
}
