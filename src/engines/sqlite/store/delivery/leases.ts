/**
 * Ranges of messages on their way between the cursor and settlement.
 *
 * A range [from, to) is *leased* while a session holds it and *returned* while none does. It comes into being when
 * the cursor moves over it, shrinks as its ends are settled, and is deleted when nothing of it is open: two row writes
 * on the happy path, however many messages it holds. A message that fails leaves its range for a row of its own (see
 * exceptions.ts). Changing hands gives a range a new lease id, so that an id names one holder only: a settlement
 * whose lease and session do not match a row is fenced, and changes nothing.
 *
 * A range whose session was lost is returned with one more crash to its count, and handed out like any other. Once
 * one more crash would make dead letters of its messages they are suspects: handed out singly and marked isolated, one
 * per session at a time. So the crash that buries a message speaks of that message alone.
 */
import type { Failure, KeyChain, LeaseId } from '../../../../engine.ts'
import { PosthornError } from '../../../../errors.ts'
import * as sql from '../../sql/leases.ts'
import type { Statements } from '../file/connection.ts'
import { SettledBits } from './settled-bits.ts'

/** One process's share of a subscription, as the store knows it. */
export interface SourceRow {
  readonly subscriptionId: number
  readonly topicId: number
  readonly kind: 'topic' | 'queue'
  /** Of each lane of the topic. */
  readonly partitions: number
}

/** What a grant will hold, before its messages are read. */
export interface PlannedGrant {
  readonly lease: LeaseId
  readonly partition: number
  readonly ranges: readonly (readonly [from: number, to: number])[]
  readonly attempt: number
  readonly setAside: boolean
  readonly crashes: number
  readonly isolated: boolean
  readonly failures: readonly Failure[]
  /** See `Grant.takeover`. */
  readonly takeover?: readonly KeyChain[]
  /** The event's JSON, where it is kept apart from the log. */
  readonly event?: string
}

export interface LeaseRow {
  readonly leaseId: LeaseId
  readonly subscriptionId: number
  readonly partition: number
  readonly fromOffset: number
  readonly toOffset: number
  readonly settled: Uint8Array | null
  readonly crashes: number
  readonly isolated: 0 | 1
}

export interface ReturnedRow extends LeaseRow {
  /** Whether one more crash would make dead letters of its messages. */
  readonly suspect: 0 | 1
}

type Bounds = Pick<LeaseRow, 'leaseId' | 'fromOffset' | 'toOffset' | 'settled'>

interface Holder {
  readonly sessionId: number | null
  readonly isolated: boolean
}

/** More than any pull asks for. */
const RANGE_MESSAGES_MAX = 2 ** 24
const LEASE_IDS_PER_BLOCK = 2 ** 24
const LEASE_IDS_PER_TRANSACTION_MAX = 2 ** 20

/** The rows of the ranges, and the ids that name them. */
export class LeaseRows {
  readonly #statements: Statements
  #nextId = 0
  #blockEnd = 0

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** Whether ids run low. Reserve more in a transaction of its own: ids handed out must survive a roll-back. */
  get needsIds(): boolean {
    return this.#blockEnd - this.#nextId < LEASE_IDS_PER_TRANSACTION_MAX
  }

  /** Reserves a block of lease ids that no other process will use. Returns what makes them usable after the commit. */
  reserveIds(): () => void {
    const { block } = this.#statements.get<{ block: number }>(sql.RESERVE_LEASE_IDS)!
    return () => {
      this.#nextId = block * LEASE_IDS_PER_BLOCK
      this.#blockEnd = this.#nextId + LEASE_IDS_PER_BLOCK
    }
  }

  newId(): LeaseId {
    return this.#nextId++
  }

  insertFresh(subscriptionId: number, partition: number, from: number, to: number, sessionId: number): LeaseId {
    const lease = this.newId()
    this.#statements.run(sql.INSERT_LEASE, lease, subscriptionId, partition, from, to, null, sessionId, 0, 0)
    return lease
  }

  /** A part of a range, under an id of its own. */
  insertPart(
    row: Pick<LeaseRow, 'subscriptionId' | 'partition' | 'crashes'>,
    bits: SettledBits,
    { sessionId, isolated }: Holder,
  ): LeaseId {
    const lease = this.newId()
    const { subscriptionId, partition, crashes } = row
    const { from, to } = bits
    this.#statements.run(
      sql.INSERT_LEASE,
      lease,
      subscriptionId,
      partition,
      from,
      to,
      bits.stored(),
      sessionId,
      crashes,
      Number(isolated),
    )
    return lease
  }

  insertReturned(row: LeaseRow, bits: SettledBits): void {
    const open = bits.trimmed()
    if (open.open > 0) this.insertPart(row, open, { sessionId: null, isolated: false })
  }

  find(lease: LeaseId, sessionId: number): LeaseRow | undefined {
    return this.#statements.get<LeaseRow>(sql.FIND_LEASE, lease, sessionId)
  }

  returned(subscriptionId: number): ReturnedRow[] {
    return this.#statements.all<ReturnedRow>(sql.RETURNED_RANGES, subscriptionId)
  }

  /** The first ones of a partition, in the order of their offsets. */
  returnedOf(subscriptionId: number, partition: number): ReturnedRow[] {
    return this.#statements.all<ReturnedRow>(sql.RETURNED_RANGES_OF_PARTITION, subscriptionId, partition)
  }

  anyReturned(subscriptionId: number, partition: number): boolean {
    return this.#statements.get(sql.FIND_RETURNED_RANGE, subscriptionId, partition) !== undefined
  }

  ofSession(sessionId: number): LeaseRow[] {
    return this.#statements.all<LeaseRow>(sql.LEASES_OF_SESSION, sessionId)
  }

  /** The ids of all that the session holds, retries too. */
  heldBy(sessionId: number): Set<LeaseId> {
    const rows = this.#statements.all<{ leaseId: LeaseId }>(sql.LEASE_IDS_OF_SESSION, sessionId)
    return new Set(rows.map((row) => row.leaseId))
  }

  reachingBeyond(subscriptionId: number, partition: number, offset: number): LeaseRow[] {
    return this.#statements.all<LeaseRow>(sql.LEASES_FROM_OFFSET, subscriptionId, partition, offset)
  }

  /** Writes down what is still open of a range, or deletes it when nothing is. Returns whether it goes on. */
  update(row: LeaseRow, bits: SettledBits): boolean {
    const open = bits.trimmed()
    if (open.open === 0) this.delete(row.leaseId)
    else this.#statements.run(sql.UPDATE_LEASE, open.from, open.to, open.stored(), row.leaseId)
    return open.open > 0
  }

  delete(lease: LeaseId): void {
    this.#statements.run(sql.DELETE_LEASE, lease)
  }

  /** Deletes the range if the session holds it and it lies within [from, to). Returns whether it did. */
  deleteWhole(lease: LeaseId, sessionId: number, from: number, to: number): boolean {
    return Number(this.#statements.run(sql.DELETE_WHOLE_LEASE, lease, sessionId, from, to).changes) > 0
  }

  return(lease: LeaseId, sessionId: number): void {
    this.#statements.run(sql.RETURN_LEASE, lease, sessionId)
  }

  returnAll(sessionId: number): void {
    this.#statements.run(sql.RETURN_LEASES_OF_SESSION, sessionId)
  }

  /** Returns what a lost session held, and counts the crash. */
  returnLost(sessionId: number): void {
    this.#statements.run(sql.RETURN_LOST_LEASES, sessionId)
  }

  /** Whether the session holds a suspect already. */
  isSuspectOut(sessionId: number): boolean {
    return this.#statements.get(sql.SUSPECT_IS_OUT, sessionId) !== undefined
  }
}

export function bitsOf(row: Bounds): SettledBits {
  refuseNonsense(row)
  return new SettledBits(row.fromOffset, row.toOffset, row.settled)
}

// A damaged row must not make us count for hours, or ask for more memory than there is.
function refuseNonsense({ leaseId, fromOffset, toOffset, settled }: Bounds): void {
  const length = toOffset - fromOffset
  const fits = settled === null || settled.byteLength === (length + 7) >> 3
  if (Number.isSafeInteger(fromOffset) && length > 0 && length <= RANGE_MESSAGES_MAX && fits) return
  const problem = `lease ${leaseId} makes no sense`
  throw new PosthornError('POSTHORN_STORAGE_CORRUPT', { store: 'The table posthorn_leases', problem })
}
