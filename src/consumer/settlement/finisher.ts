/** Failures that are tried again are warned of so often at most, for each subscription. */
const RETRY_WARNING_MS = 10_000

/**
 * The one way in which a delivery ends. Every message that was granted comes through here exactly once, unless its
 * lease is lost first: then whatever became of it has no effect, because somebody else has it by now.
 */
import type { Failure, SettledException } from '../../engine.ts'
import type { Environment, LogFields } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { Item, Witness } from '../fetching/supply.ts'
import type { ConsumerSettings } from '../settings.ts'
import { failureOf, isInstance } from './failure.ts'
import type { GrantLedger } from './grant-ledger.ts'
import type { Settler } from './settler.ts'
import { InvalidEvent, type Verdict, verdictOn } from './verdict.ts'

export interface FinisherEvents {
  /** A delivery ended whose lease had been lost. */
  onLostEnded(ledger: GrantLedger): void
  /** A message is recorded that was not settled from here. */
  onRecorded(ledger: GrantLedger): void
}

/** Asked about each failure before it is settled. */
export interface FailureGuard {
  /** Whether it sees to the end of the message itself, now or later. */
  keeps(ledger: GrantLedger, index: number, thrown: unknown, nowMs: number): boolean
}

export class Finisher {
  /** Undefined: every failure is settled at once. */
  guard: FailureGuard | undefined = undefined
  readonly #settler: Settler
  readonly #settings: ConsumerSettings
  readonly #environment: Environment
  readonly #events: FinisherEvents
  readonly #witness: Witness | undefined
  #warnAgainAtMs = 0

  /** `witness`: hears of each end. */
  constructor(
    settler: Settler,
    settings: ConsumerSettings,
    environment: Environment,
    events: FinisherEvents,
    witness?: Witness,
  ) {
    this.#settler = settler
    this.#settings = settings
    this.#environment = environment
    this.#events = events
    this.#witness = witness
  }

  ack(ledger: GrantLedger, index: number): void {
    if (!this.#mayEnd(ledger, index)) return
    ledger.ack(index)
    this.#settler.finished(ledger)
    if (this.#witness !== undefined) this.#witness.ended({ ledger, index }, 'acked')
  }

  /** The engine has settled the message by itself: it was cancelled, or committed with a transaction. */
  recorded(ledger: GrantLedger, index: number): void {
    if (!this.#mayEnd(ledger, index)) return
    if (this.#witness !== undefined) this.#witness.ended({ ledger, index }, 'recorded')
    ledger.record(index)
    this.#events.onRecorded(ledger)
  }

  /** The handler, or the check before it, threw. */
  fail(ledger: GrantLedger, index: number, thrown: unknown, nowMs: number): void {
    if (this.guard?.keeps(ledger, index, thrown, nowMs) !== true) this.decide(ledger, index, thrown, nowMs)
  }

  /** As `fail`, whatever the guard says. */
  decide(ledger: GrantLedger, index: number, thrown: unknown, nowMs: number): void {
    const { attempt } = ledger.grant
    const verdict = verdictOn(thrown, attempt, this.#settings.retry, this.#environment.random)
    const cause = isInstance(thrown, InvalidEvent) ? thrown.cause : thrown
    const failure = failureOf(cause, attempt, nowMs)
    this.#log(ledger, index, verdict, failure)
    this.#except(ledger, index, this.#exceptionFor(verdict, ledger, index, failure))
  }

  /** Gives the message back with nothing counted. */
  release(ledger: GrantLedger, index: number): void {
    const place = this.#placeOf(ledger, index)
    // One that came from the chain of its key goes back into it: what is before it there may still fail.
    if (ledger.grant.setAside && place.key !== undefined) this.park({ ledger, index }, 'chain')
    else this.#except(ledger, index, { offset: place.offset, kind: 'release' })
  }

  /** Sets the message aside with nothing counted. */
  park({ ledger, index }: Item, until: number | 'chain' | 'freed'): void {
    this.#except(ledger, index, { ...this.#placeOf(ledger, index), kind: 'park', until })
  }

  /** Ends the delivery of an expired message and says so, or says `false`. */
  expire(ledger: GrantLedger, index: number, nowMs: number): boolean {
    const { expiresAtMs } = ledger.message(index)
    if (expiresAtMs === undefined || expiresAtMs > nowMs) return false
    const error = new PosthornError('POSTHORN_MESSAGE_EXPIRED', { expiry: timeText(expiresAtMs) })
    const failure = failureOf(error, ledger.grant.attempt, nowMs)
    const verdict = { kind: 'dead', reason: 'expired' } as const
    this.#log(ledger, index, verdict, failure)
    this.#except(ledger, index, this.#exceptionFor(verdict, ledger, index, failure))
    return true
  }

  // A message that was cancelled has ended already, whatever becomes of its handler.
  #mayEnd(ledger: GrantLedger, index: number): boolean {
    if (ledger.lost) this.#events.onLostEnded(ledger)
    return !ledger.lost && ledger.isOpen(index)
  }

  #except(ledger: GrantLedger, index: number, exception: SettledException): void {
    if (!this.#mayEnd(ledger, index)) return
    ledger.except(index, exception)
    this.#settler.finished(ledger)
    if (this.#witness !== undefined) this.#witness.ended({ ledger, index }, exception)
  }

  #exceptionFor(verdict: Verdict, ledger: GrantLedger, index: number, failure: Failure): SettledException {
    const place = this.#placeOf(ledger, index)
    if (verdict.kind === 'retry') return { ...place, kind: 'retry', dueAtMs: failure.atMs + verdict.delayMs, failure }
    const { reason } = verdict
    const { ordered } = this.#settings
    const blocks = ordered !== false && ordered.onExhausted === 'block' && reason === 'attempts'
    if (blocks && place.key !== undefined) return { ...place, kind: 'dead', reason, failure, blocks }
    return { ...place, kind: 'dead', reason, failure }
  }

  #placeOf(ledger: GrantLedger, index: number): { offset: number; key?: string } {
    const { offset, event } = ledger.message(index)
    if (this.#settings.ordered === false || event.subject === undefined) return { offset }
    return { offset, key: event.subject }
  }

  // Giving up a message is worth a warning, unless its publisher or its handler has asked for it.
  #log(ledger: GrantLedger, index: number, verdict: Verdict, failure: Failure): void {
    if (ledger.lost || !ledger.isOpen(index)) return
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

const DATE_MS_MAX = 8.64e15

function timeText(timeMs: number): string {
  return Math.abs(timeMs) <= DATE_MS_MAX ? new Date(timeMs).toISOString() : String(timeMs)
}
