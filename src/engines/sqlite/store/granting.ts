import { type Exceptions, failuresOf, type RetryRow } from './exceptions.ts'
import { bitsOf, type LeaseRow, type LeaseRows, type PlannedGrant, type SourceRow } from './leases.ts'
import type { Log } from './log.ts'
import type { SettledBits } from './settled-bits.ts'
import type { FreshPartition, Subscriptions } from './subscriptions.ts'

const BATCHES_PER_GRANT_MAX = 256

/** What a pull asks for, and in whose name. */
export interface Demand {
  readonly source: SourceRow
  readonly sessionId: number
  readonly messagesMax: number
  readonly bytesMax: number
  readonly nowMs: number
}

/** Hands out messages: moves cursors, and writes leases. */
export class Granting {
  readonly #rows: LeaseRows
  readonly #log: Log
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  readonly #turns = new Map<number, number>()

  constructor(rows: LeaseRows, log: Log, subscriptions: Subscriptions, exceptions: Exceptions) {
    this.#rows = rows
    this.#log = log
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
  }

  /** Leases up to `messagesMax` messages to the session: what came back first, then retries and fresh messages. */
  grant(demand: Demand): PlannedGrant[] {
    const grants: PlannedGrant[] = []
    let left = demand.messagesMax
    left -= this.#grantReturned(demand, left, grants)
    // Half is kept for fresh messages; with room for only one, retries and fresh messages take turns.
    const turn = this.#nextTurn(demand.source.subscriptionId)
    const retriesMax = left === 1 ? turn % 2 : left >> 1
    left -= this.#grantRetries(demand, retriesMax, grants)
    left -= this.#grantFresh(demand, turn, left, grants)
    this.#grantRetries(demand, left, grants)
    return grants
  }

  // Of each subscription's own: a counter that others move too might always find it at the same turn.
  #nextTurn(subscriptionId: number): number {
    const turn = this.#turns.get(subscriptionId) ?? 0
    this.#turns.set(subscriptionId, turn + 1)
    return turn
  }

  #grantReturned({ source, sessionId }: Demand, limit: number, grants: PlannedGrant[]): number {
    let left = limit
    let suspectIsOut: boolean | undefined
    for (const row of this.#rows.returned(source.subscriptionId)) {
      if (left <= 0) break
      if (row.suspect === 0) {
        left -= this.#leaseReturned(row, sessionId, left, false, grants)
      } else {
        suspectIsOut ??= this.#rows.isSuspectOut(sessionId)
        if (!suspectIsOut) left -= this.#leaseReturned(row, sessionId, 1, true, grants)
        suspectIsOut = true
      }
    }
    return limit - left
  }

  // Hands out the first messages of a returned range under a new lease, and leaves the rest returned.
  #leaseReturned(row: LeaseRow, sessionId: number, limit: number, isolated: boolean, grants: PlannedGrant[]): number {
    const bits = bitsOf(row)
    const taken = splitOpen(bits, limit)
    const { partition, crashes } = row
    this.#rows.delete(row.leaseId)
    if (taken.to < row.toOffset) this.#rows.insertReturned(row, bits.slice(taken.to, row.toOffset))
    const lease = this.#rows.insertPart(row, taken, { sessionId, isolated })
    grants.push({ ...plain, lease, partition, ranges: taken.openRanges(), crashes, isolated })
    return taken.open
  }

  #grantRetries({ source, sessionId, nowMs }: Demand, limit: number, grants: PlannedGrant[]): number {
    if (limit <= 0) return 0
    const { subscriptionId } = source
    const suspects = this.#rows.isSuspectOut(sessionId) ? [] : this.#exceptions.dueSuspects(subscriptionId, nowMs, 1)
    const others = this.#exceptions.due(subscriptionId, nowMs, limit - suspects.length)
    for (const row of suspects) grants.push(this.#leaseRetry(row, sessionId, true))
    for (const row of others) grants.push(this.#leaseRetry(row, sessionId, false))
    return suspects.length + others.length
  }

  #leaseRetry(row: RetryRow, sessionId: number, isolated: boolean): PlannedGrant {
    const lease = this.#rows.newId()
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

  #grantFresh(demand: Demand, turn: number, limit: number, grants: PlannedGrant[]): number {
    if (limit <= 0) return 0
    const { subscriptionId, topicId } = demand.source
    const partitions = this.#subscriptions.freshPartitions(subscriptionId, topicId)
    // Start elsewhere each time, so that a busy partition does not keep the others waiting.
    const start = turn % Math.max(1, partitions.length)
    let left = limit
    let bytesLeft = demand.bytesMax
    for (let step = 0; step < partitions.length && left > 0 && bytesLeft > 0; step++) {
      const fresh = partitions[(start + step) % partitions.length]!
      const { messages, bytes } = this.#leaseFresh(demand, fresh, left, bytesLeft, grants)
      left -= messages
      bytesLeft -= bytes
    }
    return limit - left
  }

  #leaseFresh(demand: Demand, fresh: FreshPartition, limit: number, bytesMax: number, grants: PlannedGrant[]) {
    const { partition } = fresh
    const { subscriptionId, topicId } = demand.source
    const { from, to, bytes } = this.#measure(topicId, fresh, limit, bytesMax)
    this.#subscriptions.moveCursor(subscriptionId, partition, to)
    if (from === to) return { messages: 0, bytes: 0 }
    const lease = this.#rows.insertFresh(subscriptionId, partition, from, to, demand.sessionId)
    grants.push({ ...plain, lease, partition, ranges: [[from, to]] })
    return { messages: to - from, bytes }
  }

  // How far a fresh range reaches: whole batches while the limits allow, or else a part of the first.
  #measure(topicId: number, { partition, cursor, head }: FreshPartition, limit: number, bytesMax: number) {
    const places = this.#log.findBatches(topicId, partition, cursor, Math.min(limit, BATCHES_PER_GRANT_MAX))
    // What lies between was purged, or deleted unread because the topic says so.
    if (!places[0]) return { from: head, to: head, bytes: 0 }
    const from = Math.max(cursor, places[0].baseOffset)
    let to = from
    let bytes = 0
    for (const { baseOffset, count, bytes: size } of places) {
      const fits = baseOffset + count - from <= limit && bytes + size <= bytesMax
      if (to > from && (baseOffset !== to || !fits)) break
      to = Math.min(baseOffset + count, from + limit)
      bytes += size
    }
    return { from, to, bytes }
  }
}

const plain = { attempt: 1, crashes: 0, isolated: false, failures: [] }

// The shortest beginning of the range that holds `limit` open offsets.
function splitOpen(bits: SettledBits, limit: number): SettledBits {
  let left = limit
  for (const [from, to] of bits.openRanges()) {
    if (to - from >= left) return bits.slice(bits.from, from + left)
    left -= to - from
  }
  return bits
}
