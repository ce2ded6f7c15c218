import { type Exceptions, failuresOf, type RetryRow } from './exceptions.ts'
import { bitsOf, type LeaseRow, type LeaseRows, type PlannedGrant, type SourceRow } from './leases.ts'
import type { Log } from './log.ts'
import type { SettledBits } from './settled-bits.ts'
import type { FreshPartition, Subscriptions } from './subscriptions.ts'

const BATCHES_PER_GRANT_MAX = 256
/** Rows are read whole before their size is known, and redriven ones hold their message. */
const RETRIES_PER_GRANT_MAX = 64

/** What a pull asks for, and in whose name. */
export interface Demand {
  readonly source: SourceRow
  readonly sessionId: number
  readonly messagesMax: number
  readonly bytesMax: number
  readonly nowMs: number
}

/** What a pull may still take; the last message may exceed it. */
interface Allowance {
  bytes: number
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
    const allowance: Allowance = { bytes: demand.bytesMax }
    let left = demand.messagesMax
    left -= this.#grantReturned(demand, left, allowance, grants)
    // Half is kept for fresh messages; with room for only one, retries and fresh messages take turns.
    const turn = this.#nextTurn(demand.source.subscriptionId)
    const retriesMax = left === 1 ? turn % 2 : left >> 1
    left -= this.#grantRetries(demand, retriesMax, allowance, grants)
    left -= this.#grantFresh(demand, turn, left, allowance, grants)
    this.#grantRetries(demand, left, allowance, grants)
    return grants
  }

  // Of each subscription's own: a counter that others move too might always find it at the same turn.
  #nextTurn(subscriptionId: number): number {
    const turn = this.#turns.get(subscriptionId) ?? 0
    this.#turns.set(subscriptionId, turn + 1)
    return turn
  }

  #grantReturned(demand: Demand, limit: number, allowance: Allowance, grants: PlannedGrant[]): number {
    const { source, sessionId } = demand
    let left = limit
    let suspectIsOut: boolean | undefined
    for (const row of this.#rows.returned(source.subscriptionId)) {
      if (left <= 0 || allowance.bytes <= 0) break
      if (row.suspect === 1) {
        suspectIsOut ??= this.#rows.isSuspectOut(sessionId)
        if (suspectIsOut) continue
        suspectIsOut = true
      }
      const size = Math.max(1, this.#averageSize(source.topicId, row.partition, row.fromOffset))
      const fitting = Math.max(1, Math.floor(allowance.bytes / size))
      const messagesMax = row.suspect === 1 ? 1 : Math.min(left, fitting)
      const taken = this.#leaseReturned(row, sessionId, messagesMax, row.suspect === 1, grants)
      allowance.bytes -= taken * size
      left -= taken
    }
    return limit - left
  }

  /** About how many bytes a message takes: the average of its record batch. */
  #averageSize(topicId: number, partition: number, offset: number): number {
    const [place] = this.#log.findBatches(topicId, partition, offset, 1)
    return place ? place.bytes / place.count : 0
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

  #grantRetries(demand: Demand, limit: number, allowance: Allowance, grants: PlannedGrant[]): number {
    if (limit <= 0 || allowance.bytes <= 0) return 0
    const { source, sessionId, nowMs } = demand
    const { subscriptionId, topicId } = source
    const suspects = this.#rows.isSuspectOut(sessionId) ? [] : this.#exceptions.dueSuspects(subscriptionId, nowMs, 1)
    const othersMax = Math.min(limit - suspects.length, RETRIES_PER_GRANT_MAX)
    let granted = 0
    for (const row of [...suspects, ...this.#exceptions.due(subscriptionId, nowMs, othersMax)]) {
      if (allowance.bytes <= 0) break
      const size = row.event?.length ?? this.#averageSize(topicId, row.partition, row.offset)
      allowance.bytes -= size + row.failures.length
      grants.push(this.#leaseRetry(row, sessionId, granted < suspects.length))
      granted++
    }
    return granted
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

  #grantFresh(demand: Demand, turn: number, limit: number, allowance: Allowance, grants: PlannedGrant[]): number {
    if (limit <= 0) return 0
    const { subscriptionId, topicId } = demand.source
    const partitions = this.#subscriptions.freshPartitions(subscriptionId, topicId)
    // Start elsewhere each time, so that a busy partition does not keep the others waiting.
    const start = turn % Math.max(1, partitions.length)
    let left = limit
    for (let step = 0; step < partitions.length && left > 0 && allowance.bytes > 0; step++) {
      const fresh = partitions[(start + step) % partitions.length]!
      const { messages, bytes } = this.#leaseFresh(demand, fresh, left, allowance.bytes, grants)
      left -= messages
      allowance.bytes -= bytes
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
