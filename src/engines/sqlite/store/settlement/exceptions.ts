import type { DeadReason, Failure, LeaseId } from '../../../../engine.ts'
import { NEVER_MS, PARKED } from '../../sql/chains.ts'
import * as sql from '../../sql/retries.ts'
import type { Statements } from '../file/connection.ts'
import type { MessageReader } from '../log/message-reader.ts'
import type { Chains } from '../order/chains.ts'
import type { DeadLetterRow } from './dead-letters.ts'

/** A message that was set aside: it failed, or waits for its key or for a limit. */
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
  readonly key: string | null
}

export interface DueRow extends RetryRow {
  /** Whether one more crash would make a dead letter of it. */
  readonly suspect: 0 | 1
}

/** A message of a range, on its way to a row of its own. */
export interface MessagePlace {
  readonly subscriptionId: number
  readonly partition: number
  readonly offset: number
  readonly crashes: number
  /** Given in ordered subscriptions, if the message has one. */
  readonly key: string | undefined
}

/** What a message that is set aside waits for. */
export type Until = number | 'chain' | 'freed'

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
  readonly key?: string | null | undefined
  /** Its key waits for an operator. */
  readonly blocks?: boolean | undefined
}

/** Messages that did not go the happy way, a row each: set aside, or buried, with their content and history. */
export class Exceptions {
  readonly #statements: Statements
  readonly #reader: MessageReader
  readonly #chains: Chains

  constructor(statements: Statements, reader: MessageReader, chains: Chains) {
    this.#statements = statements
    this.#reader = reader
    this.#chains = chains
  }

  /** After the first failure, under this lease. */
  retry(place: MessagePlace, dueAtMs: number, failure: Failure, lease: LeaseId): void {
    const row = { dueAtMs, parked: PARKED.not, attempt: 2, failures: [failure], failedUnder: lease }
    this.#insert({ ...place, crashes: 0 }, row)
    this.#holdBehind(place)
  }

  retryAgain(row: RetryRow, dueAtMs: number, failure: Failure): void {
    this.#statements.run(sql.RETRY_AGAIN, dueAtMs, JSON.stringify([...failuresOf(row), failure]), row.retryId)
    this.#holdBehind(row)
  }

  /** Sets a message of a range aside. */
  park(place: MessagePlace, until: Until, nowMs: number): void {
    this.#insert(place, { ...this.#wait(place, until, nowMs), attempt: 1, failures: [] })
    if (typeof until === 'number') this.#holdBehind(place)
  }

  parkAgain(row: RetryRow, until: Until, nowMs: number): void {
    const { dueAtMs, parked } = this.#wait(row, until, nowMs)
    this.#statements.run(sql.PARK_AGAIN, dueAtMs, parked, row.retryId)
    if (typeof until === 'number') this.#holdBehind(row)
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
      burial.key ?? null,
      Number(isBlocking(burial)),
    )
    if (isBlocking(burial)) this.#holdBehind(burial)
  }

  buryRetry(
    row: RetryRow,
    death: Pick<Burial, 'topicId' | 'reason' | 'blocks'>,
    failure: Failure,
    nowMs: number,
  ): void {
    const { subscriptionId, partition, offset, attempt: attempts, crashes, event, key } = row
    const failures = [...failuresOf(row), failure]
    this.bury({ ...death, subscriptionId, partition, offset, attempts, crashes, failures, event, key }, nowMs)
    this.settleForGood(row, nowMs)
  }

  /** The message is done with: what waits behind it goes on. */
  settleForGood(row: RetryRow, nowMs: number): void {
    this.#statements.run(sql.DELETE_RETRY, row.retryId)
    const { subscriptionId, partition, key } = row
    if (key !== null) this.#chains.advance({ subscriptionId, partition, key }, nowMs)
  }

  /** What is due and no suspect. */
  due(subscriptionId: number, nowMs: number, limit: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.DUE_RETRIES, subscriptionId, nowMs, limit)
  }

  dueSuspects(subscriptionId: number, nowMs: number, limit: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.DUE_SUSPECTS, subscriptionId, nowMs, limit)
  }

  /** What is due of a partition, suspects too, in the order in which it is to be handled. */
  dueInPartition(subscriptionId: number, partition: number, nowMs: number, limit: number): DueRow[] {
    return this.#statements.all<DueRow>(sql.DUE_IN_PARTITION, subscriptionId, nowMs, partition, limit)
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

  /** What failed under the lease and has waited ever since. */
  failedUnder(leaseId: LeaseId, subscriptionId: number, offset: number): RetryRow | undefined {
    return this.#statements.get<RetryRow>(sql.FIND_FAILED_RETRY, subscriptionId, offset, leaseId)
  }

  leasedBySession(sessionId: number): RetryRow[] {
    return this.#statements.all<RetryRow>(sql.RETRIES_OF_SESSION, sessionId)
  }

  release(row: RetryRow): void {
    this.#statements.run(sql.RELEASE_RETRY, row.retryId)
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

  /**
   * Gives a dead letter another life, with its attempts counted afresh: after what was set aside before it of its key,
   * and before the rest.
   */
  redrive(subscriptionId: number, dead: DeadLetterRow, dueAtMs: number, nowMs: number): void {
    const { partition, offset, event } = dead
    const place = { subscriptionId, partition, offset, crashes: 0, key: dead.key ?? undefined }
    this.#statements.run(sql.DELETE_DEAD_LETTER, subscriptionId, dead.id)
    const waits = this.#hasPredecessor(place)
    const wait = waits ? { dueAtMs: NEVER_MS, parked: PARKED.untilTurn } : { dueAtMs, parked: PARKED.not }
    this.#insert(place, { ...wait, attempt: 1, failures: [], event })
    if (!waits && dueAtMs <= nowMs) this.#holdBehind(place)
  }

  #insert(place: MessagePlace, row: NewRow): void {
    const { subscriptionId, partition, offset, crashes, key = null } = place
    this.#statements.run(
      sql.INSERT_RETRY,
      subscriptionId,
      partition,
      offset,
      row.dueAtMs,
      row.attempt,
      crashes,
      JSON.stringify(row.failures),
      row.event ?? null,
      key,
      row.event ? idOf(row.event) : null,
      row.parked,
      row.failedUnder ?? null,
    )
  }

  #wait(place: ChainPlace, until: Until, nowMs: number): Pick<NewRow, 'dueAtMs' | 'parked'> {
    if (typeof until === 'number') return { dueAtMs: until, parked: PARKED.untilTime }
    if (until === 'freed') return { dueAtMs: NEVER_MS, parked: PARKED.untilFreed }
    const waits = this.#hasPredecessor(place)
    return waits ? { dueAtMs: NEVER_MS, parked: PARKED.untilTurn } : { dueAtMs: nowMs, parked: PARKED.not }
  }

  #hasPredecessor({ subscriptionId, partition, offset, key }: ChainPlace): boolean {
    return typeof key === 'string' && this.#chains.hasPredecessor({ subscriptionId, partition, key }, offset)
  }

  #holdBehind({ subscriptionId, partition, offset, key }: ChainPlace): void {
    if (typeof key === 'string') this.#chains.holdBehind({ subscriptionId, partition, key }, offset)
  }
}

type ChainPlace = Pick<MessagePlace, 'subscriptionId' | 'partition' | 'offset'> & {
  readonly key?: string | null | undefined
}

interface NewRow {
  readonly dueAtMs: number
  readonly parked: number
  readonly attempt: number
  readonly failures: readonly Failure[]
  readonly event?: string | null
  readonly failedUnder?: LeaseId
}

// SQLite's own JSON functions refuse what is nested deeply.
function idOf(event: string): string {
  return (JSON.parse(event) as { id: string }).id
}

/** Without a key there is nothing to block. */
function isBlocking({ key, blocks }: Burial): boolean {
  return blocks === true && typeof key === 'string'
}

export function failuresOf(row: { readonly failures: string }): Failure[] {
  return JSON.parse(row.failures) as Failure[]
}
