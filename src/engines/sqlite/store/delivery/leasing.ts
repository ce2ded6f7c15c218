import type { FreshPartition, Subscriptions } from '../consumers/subscriptions.ts'
import type { Log } from '../log/log.ts'
import type { CancelledOffsets } from '../operators/cancellation.ts'
import { type Exceptions, failuresOf, type RetryRow } from '../settlement/exceptions.ts'
import { bitsOf, type LeaseRow, type LeaseRows, type PlannedGrant, type SourceRow } from './leases.ts'
import { SettledBits } from './settled-bits.ts'

const BATCHES_PER_GRANT_MAX = 256

interface FreshRange {
  readonly from: number
  readonly to: number
  readonly bytes: number
}

/** What a pull asks for, and in whose name. */
export interface Demand {
  readonly source: SourceRow
  readonly sessionId: number
  readonly messagesMax: number
  readonly bytesMax: number
  readonly nowMs: number
}

/** What a pull may still take, and what it got; the last message may exceed it. */
export class Allowance {
  messages: number
  bytes: number
  readonly grants: PlannedGrant[] = []

  constructor({ messagesMax, bytesMax }: Demand) {
    this.messages = messagesMax
    this.bytes = bytesMax
  }

  get isSpent(): boolean {
    return this.messages <= 0 || this.bytes <= 0
  }

  spend(grant: PlannedGrant, messages: number, bytes: number): void {
    this.grants.push(grant)
    this.messages -= messages
    this.bytes -= bytes
  }
}

/** Writes the leases by which messages are handed out, of each of the three places where they wait. */
export class Leasing {
  readonly rows: LeaseRows
  readonly #log: Log
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  readonly #cancelled: CancelledOffsets

  constructor(
    rows: LeaseRows,
    log: Log,
    subscriptions: Subscriptions,
    exceptions: Exceptions,
    cancelled: CancelledOffsets,
  ) {
    this.rows = rows
    this.#log = log
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
    this.#cancelled = cancelled
  }

  /**
   * Hands out the first messages of a returned range, those before `end` and a suspect alone, and leaves the rest
   * returned. Returns whether all of it went.
   */
  returned(demand: Demand, row: LeaseRow, isolated: boolean, allowance: Allowance, end = row.toOffset): boolean {
    const size = Math.max(1, this.#averageSize(demand.source.topicId, row.partition, row.fromOffset))
    const fitting = Math.max(1, Math.floor(allowance.bytes / size))
    const bits = bitsOf(row)
    const first = end < row.toOffset ? bits.slice(row.fromOffset, end) : bits
    const taken = splitOpen(first, isolated ? 1 : Math.min(allowance.messages, fitting))
    const { partition, crashes } = row
    this.rows.delete(row.leaseId)
    const rest = taken.to < row.toOffset
    if (rest) this.rows.insertReturned(row, bits.slice(taken.to, row.toOffset))
    const lease = this.rows.insertPart(row, taken, { sessionId: demand.sessionId, isolated })
    const grant = { ...plain, lease, partition, ranges: taken.openRanges(), crashes, isolated }
    allowance.spend(grant, taken.open, taken.open * size)
    return !rest
  }

  /** Hands out a message that was set aside. */
  setAside(demand: Demand, row: RetryRow, isolated: boolean, allowance: Allowance): void {
    const size = row.event?.length ?? this.#averageSize(demand.source.topicId, row.partition, row.offset)
    const lease = this.rows.newId()
    this.#exceptions.lease(row, lease, demand.sessionId, isolated)
    const grant = {
      lease,
      partition: row.partition,
      ranges: [[row.offset, row.offset + 1]] as const,
      attempt: row.attempt,
      setAside: true,
      crashes: row.crashes,
      isolated,
      failures: failuresOf(row),
      ...(row.event !== null && { event: row.event }),
    }
    allowance.spend(grant, 1, size + row.failures.length)
  }

  /** Hands out the next `limit` new messages of a partition at most, and says how many. */
  fresh(demand: Demand, fresh: FreshPartition, limit: number, allowance: Allowance): number {
    const { partition, head } = fresh
    const { subscriptionId, topicId } = demand.source
    let { cursor } = fresh
    let granted = 0
    // What is wholly cancelled is passed over at once, or a pull could be left with nothing though there is something.
    while (granted === 0 && cursor < head) {
      const range = this.#measure(topicId, { partition, cursor, head }, limit, allowance.bytes)
      granted = this.#leaseOpen(demand, partition, range, allowance)
      cursor = range.to
      if (granted === 0 && cursor < head) cursor = this.#cancelled.endOfRun(subscriptionId, partition, cursor - 1)
    }
    this.#subscriptions.moveCursor(subscriptionId, partition, cursor)
    return granted
  }

  // Leases what is not cancelled of a range, and says how many messages that is.
  #leaseOpen(demand: Demand, partition: number, { from, to, bytes }: FreshRange, allowance: Allowance): number {
    if (from === to) return 0
    const { subscriptionId } = demand.source
    const cancelled = this.#cancelled.cancelled(subscriptionId, partition, from, to)
    if (cancelled.length === 0) {
      const lease = this.rows.insertFresh(subscriptionId, partition, from, to, demand.sessionId)
      allowance.spend({ ...plain, lease, partition, ranges: [[from, to]] }, to - from, bytes)
      return to - from
    }
    const bits = new SettledBits(from, to, null)
    for (const offset of cancelled) bits.settle(offset)
    const open = bits.trimmed()
    if (open.open === 0) return 0
    const row = { subscriptionId, partition, crashes: 0 }
    const lease = this.rows.insertPart(row, open, { sessionId: demand.sessionId, isolated: false })
    allowance.spend({ ...plain, lease, partition, ranges: open.openRanges() }, open.open, bytes)
    return open.open
  }

  /** About how many bytes a message takes: the average of its record batch. */
  #averageSize(topicId: number, partition: number, offset: number): number {
    const [place] = this.#log.findBatches(topicId, partition, offset, 1)
    return place ? place.bytes / place.count : 0
  }

  // How far a fresh range reaches: whole batches while the limits allow, or else a part of the first.
  #measure(topicId: number, { partition, cursor, head }: FreshPartition, limit: number, bytesMax: number): FreshRange {
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

const plain = { attempt: 1, setAside: false, crashes: 0, isolated: false, failures: [] }

// The shortest beginning of the range that holds `limit` open offsets.
function splitOpen(bits: SettledBits, limit: number): SettledBits {
  let left = limit
  for (const [from, to] of bits.openRanges()) {
    if (to - from >= left) return bits.slice(bits.from, from + left)
    left -= to - from
  }
  return bits
}
