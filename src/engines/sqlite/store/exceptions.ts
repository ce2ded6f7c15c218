import type { DeadReason, Failure } from '../../../engine.ts'
import * as sql from '../sql/retries.ts'
import type { Statements } from './connection.ts'
import type { MessageReader } from './message-reader.ts'

/** A message that failed, as it is kept between attempts. */
export interface RetryRow {
  readonly retryId: number
  readonly subscriptionId: number
  readonly partition: number
  readonly offset: number
  /** The number of the next attempt, or of the one under way. */
  readonly attempt: number
  readonly crashes: number
  readonly isolated: 0 | 1
  readonly failures: string
  readonly event: string | null
}

export interface DeadLetterRow {
  readonly id: number
  readonly partition: number
  readonly offset: number
  readonly reason: DeadReason
  readonly deadAtMs: number
  readonly attempts: number
  readonly crashes: number
  readonly failures: string
  readonly event: string | null
}

export interface Burial {
  readonly subscriptionId: number
  readonly topicId: number
  readonly partition: number
  readonly offset: number
  readonly reason: DeadReason
  readonly attempts: number
  readonly crashes: number
  readonly failures: readonly Failure[]
  /** A copy of the event where the log may no longer have it. */
  readonly event?: string | null
}

/** Messages that did not go the happy way, a row each: retries, and dead letters with their content and history. */
export class Exceptions {
  readonly #statements: Statements
  readonly #reader: MessageReader

  constructor(statements: Statements, reader: MessageReader) {
    this.#statements = statements
    this.#reader = reader
  }

  retry(
    subscriptionId: number,
    partition: number,
    offset: number,
    dueAtMs: number,
    failures: readonly Failure[],
  ): void {
    const attempt = failures.length + 1
    const history = JSON.stringify(failures)
    this.#statements.run(sql.INSERT_RETRY, subscriptionId, partition, offset, dueAtMs, attempt, history, null)
  }

  retryAgain(row: RetryRow, dueAtMs: number, failure: Failure): void {
    this.#statements.run(sql.RETRY_AGAIN, dueAtMs, JSON.stringify([...failuresOf(row), failure]), row.retryId)
  }

  bury(burial: Burial, nowMs: number): void {
    const { topicId, partition, offset } = burial
    const event = burial.event ?? this.#reader.eventText(topicId, partition, offset) ?? null
    this.#statements.run(
      sql.INSERT_DEAD_LETTER,
      burial.subscriptionId,
      partition,
      offset,
      burial.reason,
      nowMs,
      burial.attempts,
      burial.crashes,
      JSON.stringify(burial.failures),
      event,
    )
  }

  buryRetry(row: RetryRow, topicId: number, reason: DeadReason, failure: Failure, nowMs: number): void {
    const { subscriptionId, partition, offset, attempt: attempts, crashes, event } = row
    const failures = [...failuresOf(row), failure]
    this.bury({ subscriptionId, topicId, partition, offset, reason, attempts, crashes, failures, event }, nowMs)
    this.delete(row)
  }

  /** What is due and no suspect. */
  due(subscriptionId: number, nowMs: number, limit: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.DUE_RETRIES, subscriptionId, nowMs, limit)
  }

  dueSuspects(subscriptionId: number, nowMs: number, limit: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.DUE_SUSPECTS, subscriptionId, nowMs, limit)
  }

  nextDueMs(subscriptionId: number): number | undefined {
    return this.#statements.get<{ dueAtMs: number | null }>(sql.NEXT_RETRY, subscriptionId)?.dueAtMs ?? undefined
  }

  lease(row: RetryRow, leaseId: number, sessionId: number, isolated: boolean): void {
    this.#statements.run(sql.LEASE_RETRY, leaseId, sessionId, Number(isolated), row.retryId)
  }

  leased(leaseId: number, sessionId: number): RetryRow | undefined {
    return this.#statements.get<RetryRow>(sql.FIND_LEASED_RETRY, leaseId, sessionId)
  }

  leasedBySession(sessionId: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.RETRIES_OF_SESSION, sessionId)
  }

  release(row: RetryRow): void {
    this.#statements.run(sql.RELEASE_RETRY, row.retryId)
  }

  delete(row: RetryRow): void {
    this.#statements.run(sql.DELETE_RETRY, row.retryId)
  }

  return(leaseId: number, sessionId: number): void {
    this.#statements.run(sql.RETURN_RETRY, leaseId, sessionId)
  }

  returnAll(sessionId: number): void {
    this.#statements.run(sql.RETURN_RETRIES_OF_SESSION, sessionId)
  }

  returnLost(sessionId: number): void {
    this.#statements.run(sql.RETURN_LOST_RETRIES, sessionId)
  }

  deleteAll(subscriptionId: number): void {
    this.#statements.run(sql.DELETE_ALL_RETRIES, subscriptionId)
  }

  /** Deletes retries that the log will deliver again; redriven messages, which it may no longer have, stay. */
  deleteFrom(subscriptionId: number, partition: number, offset: number): void {
    this.#statements.run(sql.DELETE_RETRIES_FROM_OFFSET, subscriptionId, partition, offset)
  }

  deadLetters(subscriptionId: number, afterId: number, limit: number): DeadLetterRow[] {
    return this.#statements.all<DeadLetterRow>(sql.LIST_DEAD_LETTERS, subscriptionId, afterId, limit)
  }

  deadLetter(subscriptionId: number, id: number): DeadLetterRow | undefined {
    return this.#statements.get<DeadLetterRow>(sql.FIND_DEAD_LETTER, subscriptionId, id)
  }

  /** Gives a dead letter another life, with its attempts counted afresh. */
  redrive(subscriptionId: number, dead: DeadLetterRow, dueAtMs: number): void {
    const { partition, offset, event } = dead
    this.#statements.run(sql.INSERT_RETRY, subscriptionId, partition, offset, dueAtMs, 1, '[]', event)
    this.#statements.run(sql.DELETE_DEAD_LETTER, subscriptionId, dead.id)
  }

  deleteDeadLetters(subscriptionId: number, ids: readonly number[] | undefined): number {
    if (!ids) return Number(this.#statements.run(sql.DELETE_ALL_DEAD_LETTERS, subscriptionId).changes)
    let deleted = 0
    for (const id of ids) deleted += Number(this.#statements.run(sql.DELETE_DEAD_LETTER, subscriptionId, id).changes)
    return deleted
  }
}

export function failuresOf(row: { readonly failures: string }): Failure[] {
  return JSON.parse(row.failures) as Failure[]
}
