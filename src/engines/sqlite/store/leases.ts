/**
 * Ranges of messages on their way between the cursor and settlement.
 *
 * A range [from, to) is *leased* while a session holds it and *returned* while none does. It comes into being when
 * the cursor moves over it, shrinks as its ends are settled, and is deleted when nothing of it is open: two row writes
 * on the happy path, however many messages it holds. A message that fails leaves its range for a row of its own (see
 * exceptions.ts). Changing hands gives a range a new lease id, so that an id names one holder only: a settlement
 * whose lease and session do not match a row is fenced, and changes nothing.
 *
 * A range whose session was lost holds suspects. They are handed out singly and marked isolated, one per session at a
 * time; the crash count of an isolated message therefore speaks of that message alone.
 */
import type { DeadReason, Failure, LeaseId, SettledException, Settlement } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import * as sql from '../sql/leases.ts'
import type { Statements } from './connection.ts'
import { type Exceptions, failuresOf, type RetryRow } from './exceptions.ts'
import type { Log } from './log.ts'
import { SettledBits } from './settled-bits.ts'
import type { FreshPartition, Subscriptions } from './subscriptions.ts'

/** One process's share of a subscription, as the store knows it. */
export interface SourceRow {
  readonly subscriptionId: number
  readonly topicId: number
  readonly kind: 'topic' | 'queue'
}

/** What a grant will hold, before its messages are read. */
export interface PlannedGrant {
  readonly lease: LeaseId
  readonly partition: number
  readonly ranges: readonly (readonly [from: number, to: number])[]
  readonly attempt: number
  readonly crashes: number
  readonly isolated: boolean
  readonly failures: readonly Failure[]
  /** The event's JSON, where it is kept apart from the log. */
  readonly event?: string
}

/** `fenced`: nothing was recorded, because the lease is not or no longer the session's. */
export type SettleOutcome = 'open' | 'ended' | 'fenced'

interface LeaseRow {
  readonly leaseId: LeaseId
  readonly subscriptionId: number
  readonly partition: number
  readonly fromOffset: number
  readonly toOffset: number
  readonly settled: Uint8Array | null
  readonly crashes: number
  readonly isolated: 0 | 1
}

const BATCHES_PER_GRANT_MAX = 256
const LEASE_IDS_PER_BLOCK = 2 ** 24
const LEASE_IDS_PER_TRANSACTION_MAX = 2 ** 20

export class Leases {
  readonly #statements: Statements
  readonly #log: Log
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  #nextLeaseId = 0
  #blockEnd = 0

  constructor(statements: Statements, log: Log, subscriptions: Subscriptions, exceptions: Exceptions) {
    this.#statements = statements
    this.#log = log
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
  }

  /** Whether ids run low. Reserve more in a transaction of its own: ids handed out must survive a roll-back. */
  get needsIds(): boolean {
    return this.#blockEnd - this.#nextLeaseId < LEASE_IDS_PER_TRANSACTION_MAX
  }

  /** Reserves a block of lease ids that no other process will use. Returns what makes them usable after the commit. */
  reserveIds(): () => void {
    const { block } = this.#statements.get<{ block: number }>(sql.RESERVE_LEASE_IDS)!
    return () => {
      this.#nextLeaseId = block * LEASE_IDS_PER_BLOCK
      this.#blockEnd = this.#nextLeaseId + LEASE_IDS_PER_BLOCK
    }
  }

  /** Leases up to `messagesMax` messages to the session: what came back first, then retries and fresh messages. */
  grant(source: SourceRow, sessionId: number, messagesMax: number, bytesMax: number, nowMs: number): PlannedGrant[] {
    const grants: PlannedGrant[] = []
    let left = this.#grantReturned(source, sessionId, messagesMax, grants)
    // Half is kept for fresh messages; with room for only one, retries and fresh messages take turns.
    const retriesMax = left === 1 ? this.#nextLeaseId % 2 : left >> 1
    left -= this.#grantRetries(source, sessionId, retriesMax, nowMs, grants)
    left -= this.#grantFresh(source, sessionId, left, bytesMax, grants)
    this.#grantRetries(source, sessionId, left, nowMs, grants)
    return grants
  }

  /** Records what became of a lease's messages, and says whether that was all of them. */
  settle(source: SourceRow, sessionId: number, settlement: Settlement, nowMs: number): SettleOutcome {
    if (this.#settleWhole(settlement, sessionId)) return 'ended'
    const row = this.#statements.get<LeaseRow>(sql.FIND_LEASE, settlement.lease, sessionId)
    if (row) return this.#settleRange(source, row, settlement, nowMs)
    const retry = this.#exceptions.leased(settlement.lease, sessionId)
    if (!retry) return 'fenced'
    return this.#settleRetry(source, retry, settlement, nowMs)
  }

  /** Gives back a lease that the session holds; nothing is counted against its messages. */
  return(lease: LeaseId, sessionId: number): void {
    this.#statements.run(sql.RETURN_LEASE, lease, sessionId)
    this.#exceptions.return(lease, sessionId)
  }

  /** Gives back all that the session holds. */
  returnAll(sessionId: number): void {
    this.#statements.run(sql.RETURN_LEASES_OF_SESSION, sessionId)
    this.#exceptions.returnAll(sessionId)
  }

  /** Takes back everything of a lost session; isolated messages that have crashed too often become dead letters. */
  returnLost(
    sessionId: number,
    limits: (subscriptionId: number) => { topicId: number; maxCrashes: number },
    nowMs: number,
  ): void {
    for (const row of this.#statements.all<LeaseRow>(sql.LEASES_OF_SESSION, sessionId)) {
      const { topicId, maxCrashes } = limits(row.subscriptionId)
      if (row.isolated === 0 || row.crashes + 1 < maxCrashes) continue
      this.#bury(row, topicId, row.fromOffset, 'crashed', [crashFailure(row.crashes + 1, 1, nowMs)], nowMs)
      this.#statements.run(sql.DELETE_LEASE, row.leaseId)
    }
    for (const retry of this.#exceptions.leasedBySession(sessionId)) {
      const { topicId, maxCrashes } = limits(retry.subscriptionId)
      if (retry.isolated === 0 || retry.crashes + 1 < maxCrashes) continue
      this.#buryRetry(retry, topicId, 'crashed', crashFailure(retry.crashes + 1, retry.attempt, nowMs), nowMs)
    }
    this.#statements.run(sql.RETURN_LOST_LEASES, sessionId)
    this.#exceptions.returnLost(sessionId)
  }

  /** Takes back leases and retries at or after `offset`; what a range holds before it stays with its holder or waits. */
  revokeFrom(subscriptionId: number, partition: number, offset: number): void {
    for (const row of this.#statements.all<LeaseRow>(sql.LEASES_FROM_OFFSET, subscriptionId, partition, offset)) {
      this.#statements.run(sql.DELETE_LEASE, row.leaseId)
      if (row.fromOffset >= offset) continue
      this.#insertReturned(row, bitsOf(row).slice(row.fromOffset, offset))
    }
    this.#exceptions.deleteFrom(subscriptionId, partition, offset)
  }

  /** Settles offsets that cannot be read as dead letters without content. */
  buryDamaged(
    source: SourceRow,
    lease: LeaseId,
    sessionId: number,
    from: number,
    to: number,
    failure: Failure,
    nowMs: number,
  ): void {
    const exceptions: SettledException[] = []
    for (let offset = from; offset < to; offset++) exceptions.push({ offset, kind: 'dead', reason: 'damaged', failure })
    this.settle(source, sessionId, { lease, acked: [], exceptions }, nowMs)
  }

  #grantReturned(source: SourceRow, sessionId: number, messagesMax: number, grants: PlannedGrant[]): number {
    let left = messagesMax
    let suspectIsOut: boolean | undefined
    for (const row of this.#statements.all<LeaseRow>(sql.RETURNED_RANGES, source.subscriptionId)) {
      if (left <= 0) break
      if (row.crashes === 0) {
        left -= this.#leaseReturned(row, sessionId, left, false, grants)
      } else {
        suspectIsOut ??= this.#isSuspectOut(sessionId)
        if (!suspectIsOut) left -= this.#leaseReturned(row, sessionId, 1, true, grants)
        suspectIsOut = true
      }
    }
    return left
  }

  // Hands out the first messages of a returned range under a new lease, and leaves the rest returned.
  #leaseReturned(
    row: LeaseRow,
    sessionId: number,
    messagesMax: number,
    isolated: boolean,
    grants: PlannedGrant[],
  ): number {
    const bits = bitsOf(row)
    const taken = splitOpen(bits, messagesMax)
    const lease = this.#newId()
    this.#statements.run(sql.DELETE_LEASE, row.leaseId)
    if (taken.to < row.toOffset) this.#insertReturned(row, bits.slice(taken.to, row.toOffset))
    this.#insert(lease, row, taken, sessionId, row.crashes, isolated)
    grants.push({
      ...plain,
      lease,
      partition: row.partition,
      ranges: taken.openRanges(),
      crashes: row.crashes,
      isolated,
    })
    return taken.open
  }

  #grantRetries(source: SourceRow, sessionId: number, limit: number, nowMs: number, grants: PlannedGrant[]): number {
    if (limit <= 0) return 0
    let granted = 0
    let suspectIsOut: boolean | undefined
    for (const row of this.#exceptions.due(source.subscriptionId, nowMs, limit)) {
      const isolated = row.crashes > 0
      if (isolated) {
        suspectIsOut ??= this.#isSuspectOut(sessionId)
        if (suspectIsOut) continue
        suspectIsOut = true
      }
      grants.push(this.#leaseRetry(row, sessionId, isolated))
      granted++
    }
    return granted
  }

  #leaseRetry(row: RetryRow, sessionId: number, isolated: boolean): PlannedGrant {
    const lease = this.#newId()
    this.#exceptions.lease(row, lease, sessionId, isolated)
    return {
      lease,
      partition: row.partition,
      ranges: [[row.offset, row.offset + 1]],
      attempt: row.attempt,
      crashes: row.crashes,
      isolated,
      failures: failuresOf(row),
      ...(row.event !== null && { event: row.event }),
    }
  }

  #grantFresh(source: SourceRow, sessionId: number, limit: number, bytesMax: number, grants: PlannedGrant[]): number {
    if (limit <= 0) return 0
    const partitions = this.#subscriptions.freshPartitions(source.subscriptionId, source.topicId)
    // Start elsewhere each time, so that a busy partition does not keep the others waiting.
    const start = partitions.length > 1 ? this.#nextLeaseId % partitions.length : 0
    let left = limit
    for (let step = 0; step < partitions.length && left > 0; step++) {
      const fresh = partitions[(start + step) % partitions.length]!
      left -= this.#leaseFresh(source, fresh, sessionId, left, bytesMax, grants)
    }
    return limit - left
  }

  #leaseFresh(
    source: SourceRow,
    fresh: FreshPartition,
    sessionId: number,
    limit: number,
    bytesMax: number,
    grants: PlannedGrant[],
  ): number {
    const { partition, cursor, head } = fresh
    const [from, to] = this.#measure(source.topicId, partition, cursor, head, limit, bytesMax)
    this.#subscriptions.moveCursor(source.subscriptionId, partition, to)
    if (from === to) return 0
    const lease = this.#newId()
    this.#statements.run(sql.INSERT_LEASE, lease, source.subscriptionId, partition, from, to, null, sessionId, 0, 0)
    grants.push({ ...plain, lease, partition, ranges: [[from, to]] })
    return to - from
  }

  // How far a fresh range reaches: whole batches while the limits allow, or else a part of the first.
  #measure(topicId: number, partition: number, cursor: number, head: number, limit: number, bytesMax: number) {
    const places = this.#log.findBatches(topicId, partition, cursor, Math.min(limit, BATCHES_PER_GRANT_MAX))
    // What lies between was purged, or deleted unread because the topic says so.
    if (!places[0]) return [head, head] as const
    const from = Math.max(cursor, places[0].baseOffset)
    let to = from
    let bytes = 0
    for (const { baseOffset, count, bytes: size } of places) {
      const fits = baseOffset + count - from <= limit && bytes + size <= bytesMax
      if (to > from && (baseOffset !== to || !fits)) break
      to = Math.min(baseOffset + count, from + limit)
      bytes += size
    }
    return [from, to] as const
  }

  #settleWhole({ lease, acked, exceptions }: Settlement, sessionId: number): boolean {
    if (exceptions.length > 0 || acked.length !== 2) return false
    const done = this.#statements.run(sql.DELETE_WHOLE_LEASE, lease, sessionId, acked[0]!, acked[1]!)
    return Number(done.changes) > 0
  }

  #settleRange(source: SourceRow, row: LeaseRow, settlement: Settlement, nowMs: number): SettleOutcome {
    const bits = bitsOf(row)
    for (let place = 0; place < settlement.acked.length; place += 2) {
      bits.settleRange(settlement.acked[place]!, settlement.acked[place + 1]!)
    }
    for (const exception of settlement.exceptions) {
      if (bits.settle(exception.offset)) this.#except(source, row, exception, nowMs)
    }
    return this.#store(row, bits.trimmed())
  }

  #except(source: SourceRow, row: LeaseRow, exception: SettledException, nowMs: number): void {
    const { offset } = exception
    if (exception.kind === 'release') {
      this.#insertReturned(row, new SettledBits(offset, offset + 1, null))
    } else if (exception.kind === 'retry') {
      this.#exceptions.retry(row.subscriptionId, row.partition, offset, exception.dueAtMs, [exception.failure])
    } else {
      this.#bury(row, source.topicId, offset, exception.reason, [exception.failure], nowMs)
    }
  }

  #settleRetry(source: SourceRow, row: RetryRow, settlement: Settlement, nowMs: number): SettleOutcome {
    const exception = settlement.exceptions.find(({ offset }) => offset === row.offset)
    if (!exception) {
      if (!covers(settlement.acked, row.offset)) return 'open'
      this.#exceptions.delete(row)
    } else if (exception.kind === 'release') {
      this.#exceptions.release(row)
    } else if (exception.kind === 'retry') {
      this.#exceptions.retryAgain(row, exception.dueAtMs, exception.failure)
    } else {
      this.#buryRetry(row, source.topicId, exception.reason, exception.failure, nowMs)
    }
    return 'ended'
  }

  #bury(row: LeaseRow, topicId: number, offset: number, reason: DeadReason, failures: Failure[], nowMs: number): void {
    const { subscriptionId, partition, crashes } = row
    const counted = reason === 'crashed' ? crashes + 1 : crashes
    this.#exceptions.bury(
      { subscriptionId, topicId, partition, offset, reason, attempts: 1, crashes: counted, failures },
      nowMs,
    )
  }

  #buryRetry(row: RetryRow, topicId: number, reason: DeadReason, failure: Failure, nowMs: number): void {
    const { subscriptionId, partition, offset, attempt: attempts, event } = row
    const crashes = reason === 'crashed' ? row.crashes + 1 : row.crashes
    const failures = [...failuresOf(row), failure]
    this.#exceptions.bury(
      { subscriptionId, topicId, partition, offset, reason, attempts, crashes, failures, event },
      nowMs,
    )
    this.#exceptions.delete(row)
  }

  #store(row: LeaseRow, bits: SettledBits): SettleOutcome {
    if (bits.open === 0) {
      this.#statements.run(sql.DELETE_LEASE, row.leaseId)
      return 'ended'
    }
    this.#statements.run(sql.UPDATE_LEASE, bits.from, bits.to, bits.stored(), row.leaseId)
    return 'open'
  }

  #insertReturned(row: LeaseRow, bits: SettledBits): void {
    const open = bits.trimmed()
    if (open.open > 0) this.#insert(this.#newId(), row, open, null, row.crashes, false)
  }

  #insert(
    lease: LeaseId,
    row: LeaseRow,
    bits: SettledBits,
    sessionId: number | null,
    crashes: number,
    isolated: boolean,
  ): void {
    const { subscriptionId, partition } = row
    this.#statements.run(
      sql.INSERT_LEASE,
      lease,
      subscriptionId,
      partition,
      bits.from,
      bits.to,
      bits.stored(),
      sessionId,
      crashes,
      Number(isolated),
    )
  }

  #isSuspectOut(sessionId: number): boolean {
    return this.#statements.get(sql.SUSPECT_IS_OUT, sessionId) !== undefined
  }

  #newId(): LeaseId {
    return this.#nextLeaseId++
  }
}

const plain = { attempt: 1, crashes: 0, isolated: false, failures: [] }

function bitsOf(row: LeaseRow): SettledBits {
  return new SettledBits(row.fromOffset, row.toOffset, row.settled)
}

// The shortest beginning of the range that holds `limit` open offsets.
function splitOpen(bits: SettledBits, limit: number): SettledBits {
  let left = limit
  for (const [from, to] of bits.openRanges()) {
    if (to - from >= left) return bits.slice(bits.from, from + left)
    left -= to - from
  }
  return bits
}

function covers(acked: readonly number[], offset: number): boolean {
  for (let place = 0; place < acked.length; place += 2) {
    if (acked[place]! <= offset && offset < acked[place + 1]!) return true
  }
  return false
}

function crashFailure(crashes: number, attempt: number, atMs: number): Failure {
  const { name, message, code } = new PosthornError('POSTHORN_CRASHED_REPEATEDLY', { crashes })
  return { attempt, atMs, name, message, code }
}
