/** Failures that are tried again are warned of so often at most, for each subscription. */
const RETRY_WARNING_MS = 10_000

/**
 * The one way in which a delivery ends. Every message that was granted comes through here exactly once, unless its
 * lease is lost first: then whatever became of it has no effect, because somebody else has it by now.
 */
import type { Failure, SettledException } from '../../engine.ts'
import type { Environment, LogFields } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { ConsumerSettings } from '../settings.ts'
import { failureOf, isInstance } from './failure.ts'
import type { GrantLedger } from './grant-ledger.ts'
import type { Settler } from './settler.ts'
import { InvalidEvent, type Verdict, verdictOn } from './verdict.ts'

export class Finisher {
  readonly #settler: Settler
  readonly #settings: ConsumerSettings
  readonly #environment: Environment
  readonly #onLostEnded: (ledger: GrantLedger) => void

  #warnAgainAtMs = 0

  /** `onLostEnded`: a delivery ended whose lease had been lost. */
  constructor(
    settler: Settler,
    settings: ConsumerSettings,
    environment: Environment,
    onLostEnded: (ledger: GrantLedger) => void,
  ) {
    this.#settler = settler
    this.#settings = settings
    this.#environment = environment
    this.#onLostEnded = onLostEnded
  }

  ack(ledger: GrantLedger, index: number): void {
    if (!ledger.lost) ledger.ack(index)
    this.#finished(ledger)
  }

  /** The handler, or the check before it, threw. */
  fail(ledger: GrantLedger, index: number, thrown: unknown, nowMs: number): void {
    const { attempt } = ledger.grant
    const verdict = verdictOn(thrown, attempt, this.#settings.retry, this.#environment.random)
    const cause = isInstance(thrown, InvalidEvent) ? thrown.cause : thrown
    const failure = failureOf(cause, attempt, nowMs)
    this.#log(ledger, index, verdict, failure)
    this.#except(ledger, exceptionFor(verdict, ledger.message(index).offset, failure))
  }

  /** Gives the message back with nothing counted. */
  release(ledger: GrantLedger, index: number): void {
    this.#except(ledger, { offset: ledger.message(index).offset, kind: 'release' })
  }

  /** Ends the delivery of an expired message and says so, or says `false`. */
  expire(ledger: GrantLedger, index: number, nowMs: number): boolean {
    const { expiresAtMs, offset } = ledger.message(index)
    if (expiresAtMs === undefined || expiresAtMs > nowMs) return false
    const error = new PosthornError('POSTHORN_MESSAGE_EXPIRED', { expiry: timeText(expiresAtMs) })
    const failure = failureOf(error, ledger.grant.attempt, nowMs)
    const verdict = { kind: 'dead', reason: 'expired' } as const
    this.#log(ledger, index, verdict, failure)
    this.#except(ledger, exceptionFor(verdict, offset, failure))
    return true
  }

  #except(ledger: GrantLedger, exception: SettledException): void {
    if (!ledger.lost) ledger.except(exception)
    this.#finished(ledger)
  }

  #finished(ledger: GrantLedger): void {
    if (ledger.lost) this.#onLostEnded(ledger)
    else this.#settler.finished(ledger)
  }

  // Giving up a message is worth a warning, unless its publisher or its handler has asked for it.
  #log(ledger: GrantLedger, index: number, verdict: Verdict, failure: Failure): void {
    if (ledger.lost) return
    const { logger } = this.#environment
    const fields = this.#fieldsOf(ledger, index, failure)
    if (verdict.kind === 'retry') {
      this.#logRetry(failure.atMs, { ...fields, delayMs: verdict.delayMs })
    } else if (verdict.reason === 'discarded' || verdict.reason === 'expired') {
      logger.info('A message became a dead letter.', { ...fields, reason: verdict.reason })
    } else {
      logger.warn('A message became a dead letter.', { ...fields, reason: verdict.reason })
    }
  }

  // The first of many is a warning, so that a handler that always fails is noticed long before its last attempt.
  #logRetry(nowMs: number, fields: LogFields): void {
    const { logger } = this.#environment
    const message = 'A delivery failed and is tried again.'
    // Of a timeout overrun.ts has warned already.
    if (nowMs < this.#warnAgainAtMs || fields.code === 'POSTHORN_HANDLER_TIMEOUT') {
      logger.debug(message, fields)
    } else {
      this.#warnAgainAtMs = nowMs + RETRY_WARNING_MS
      logger.warn(message, fields)
    }
  }

  #fieldsOf(ledger: GrantLedger, index: number, failure: Failure): LogFields {
    const { topic, subscription } = this.#settings
    const { partition, attempt } = ledger.grant
    const { code, message: error } = failure
    const place = { topic, subscription, partition, offset: ledger.message(index).offset }
    return { ...place, attempt, error, ...(code === undefined ? {} : { code }) }
  }
}

function exceptionFor(verdict: Verdict, offset: number, failure: Failure): SettledException {
  if (verdict.kind === 'dead') return { offset, kind: 'dead', reason: verdict.reason, failure }
  return { offset, kind: 'retry', dueAtMs: failure.atMs + verdict.delayMs, failure }
}

const DATE_MS_MAX = 8.64e15

function timeText(timeMs: number): string {
  return Math.abs(timeMs) <= DATE_MS_MAX ? new Date(timeMs).toISOString() : String(timeMs)
}
