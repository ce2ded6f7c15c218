import { Buffer } from 'node:buffer'
import type { Grant, StoredMessage } from '../../engine.ts'
import { storedMessage } from '../../message/decode.ts'
import type { DecodedBatches } from './decoded.ts'
import { FIRST_DELIVERY, type History, Lease, type LeaseHolder, type LeaseRange } from './leases.ts'
import type { PartitionLog } from './log.ts'
import type { Subscription } from './subscription.ts'
import type { RetryRow, ReturnedRange } from './waiting.ts'

export interface PullLimits {
  readonly messagesMax: number
  readonly bytesMax: number
}

export interface GrantRequest {
  readonly subscription: Subscription
  readonly holder: LeaseHolder
  readonly limits: PullLimits
  readonly nowMs: number
  /** How many pulls of this source came before: it turns priorities and partitions round. */
  readonly turn: number
  /** Whether this engine may have a suspect now. */
  readonly suspectAllowed: boolean
}

// What failed or came back goes first; but in one pull of so many, new messages do, so that they never starve.
const PULLS_BETWEEN_FRESH_FIRST = 4

/**
 * Decides what one pull gets, and leases it. Order: one suspect, retries that are due, returned ranges, new messages;
 * each as far as the limits allow. Messages that retention or a purge deleted meanwhile are passed over.
 */
export class GrantRound {
  readonly #request: GrantRequest
  readonly #decoded: DecodedBatches
  readonly #nextLeaseId: () => number
  readonly #grants: Grant[] = []
  #messagesLeft: number
  #bytesLeft: number

  constructor(request: GrantRequest, decoded: DecodedBatches, nextLeaseId: () => number) {
    this.#request = request
    this.#decoded = decoded
    this.#nextLeaseId = nextLeaseId
    this.#messagesLeft = request.limits.messagesMax
    this.#bytesLeft = request.limits.bytesMax
  }

  run(): readonly Grant[] {
    const freshFirst = this.#request.turn % PULLS_BETWEEN_FRESH_FIRST === PULLS_BETWEEN_FRESH_FIRST - 1
    if (freshFirst) this.#grantFresh()
    if (this.#request.suspectAllowed) this.#grantSuspect()
    this.#grantRetries()
    this.#grantReturned()
    if (!freshFirst) this.#grantFresh()
    return this.#grants
  }

  #isFull(): boolean {
    return this.#messagesLeft <= 0 || (this.#bytesLeft <= 0 && this.#grants.length > 0)
  }

  #grantSuspect(): void {
    const { subscription } = this.#request
    const { rows, ranges } = subscription.waiting
    for (const row of rows.filter((candidate) => subscription.isSuspect(candidate) && this.#isDue(candidate))) {
      if (this.#isFull() || this.#grantRow(row)) return
    }
    for (const range of ranges.filter((candidate) => subscription.isSuspect(candidate))) {
      if (this.#isFull() || this.#grantRange(range, 1)) return
    }
  }

  #grantRetries(): void {
    const { subscription } = this.#request
    for (const row of subscription.waiting.rows.filter((candidate) => !subscription.isSuspect(candidate))) {
      if (this.#isFull() || !this.#isDue(row)) return
      this.#grantRow(row)
    }
  }

  #grantReturned(): void {
    const { subscription } = this.#request
    for (const range of subscription.waiting.ranges.filter((candidate) => !subscription.isSuspect(candidate))) {
      if (this.#isFull()) return
      this.#grantRange(range, this.#messagesLeft)
    }
  }

  #grantFresh(): void {
    const { subscription, turn } = this.#request
    const partitions = subscription.cursors.length
    for (let step = 0; step < partitions && !this.#isFull(); step++) {
      const partition = (turn + step) % partitions
      const log = subscription.topic.logs[partition]!
      const from = subscription.position(partition)
      if (from >= log.nextOffset) continue
      const range = { partition, from, to: this.#reach(log, from, log.nextOffset) }
      subscription.cursors[partition] = range.to
      this.#lease(range, FIRST_DELIVERY, this.#decoded.read(log, range.from, range.to), false)
    }
  }

  #isDue(row: RetryRow): boolean {
    return row.dueAtMs <= this.#request.nowMs
  }

  #grantRow(row: RetryRow): boolean {
    const { subscription } = this.#request
    const { partition, offset } = row
    const log = subscription.topic.logs[partition]!
    const copy = row.event && [storedMessage(row.event, offset)]
    subscription.waiting.takeRow(row)
    return this.#lease(
      { partition, from: offset, to: offset + 1 },
      row,
      copy ?? this.#decoded.read(log, offset, offset + 1),
      true,
    )
  }

  #grantRange(range: ReturnedRange, messagesMax: number): boolean {
    const { subscription } = this.#request
    const log = subscription.topic.logs[range.partition]!
    const from = Math.max(range.from, Math.min(log.firstOffset, range.to))
    const to = this.#reach(log, from, Math.min(range.to, from + messagesMax))
    subscription.waiting.takeFront(range, to)
    const history = { ...FIRST_DELIVERY, crashes: range.crashes }
    return this.#lease({ partition: range.partition, from, to }, history, this.#decoded.read(log, from, to), false)
  }

  /** How far from `from` on the limits reach: at least one message when nothing is granted yet. */
  #reach(log: PartitionLog, from: number, to: number): number {
    const end = Math.min(to, from + this.#messagesLeft)
    let reached = from
    let bytesLeft = this.#bytesLeft
    for (const batch of log.batches(from, end)) {
      const messageBytes = batch.bytes / batch.count
      const batchEnd = Math.min(end, batch.baseOffset + batch.count)
      const fitting = Math.ceil(bytesLeft / messageBytes)
      if (reached + fitting < batchEnd) return Math.max(reached + Math.max(0, fitting), from + 1)
      bytesLeft -= (batchEnd - reached) * messageBytes
      reached = batchEnd
    }
    return end
  }

  #lease(range: LeaseRange, history: History, messages: readonly StoredMessage[], single: boolean): boolean {
    if (messages.length === 0) return false
    const { subscription, holder } = this.#request
    const { attempt, crashes, failures, event } = history
    const known: History = { attempt, crashes, failures, ...(event && { event }) }
    const isolated = subscription.isSuspect(known)
    const lease = new Lease(this.#nextLeaseId(), holder, range, known, { single, isolated })
    subscription.leases.set(lease.id, lease)
    const { partition } = range
    const bytes = event ? Buffer.byteLength(JSON.stringify(event)) : this.#bytesOf(range)
    this.#grants.push({ lease: lease.id, partition, messages, attempt, crashes, isolated, failures, bytes })
    this.#messagesLeft -= messages.length
    this.#bytesLeft -= bytes
    return true
  }

  #bytesOf(range: LeaseRange): number {
    const log = this.#request.subscription.topic.logs[range.partition]!
    let bytes = 0
    for (const batch of log.batches(range.from, range.to)) {
      const shared = Math.min(range.to, batch.baseOffset + batch.count) - Math.max(range.from, batch.baseOffset)
      bytes += (batch.bytes / batch.count) * shared
    }
    return bytes
  }
}
