import { Buffer } from 'node:buffer'
import type { Grant, StoredMessage } from '../../../engine.ts'
import { storedMessage } from '../../../message/decode.ts'
import type { DecodedBatches } from '../log/decoded.ts'
import type { Row } from '../settlement/set-aside.ts'
import type { Subscription } from '../subscription.ts'
import { FIRST_DELIVERY, type History, Lease, type LeaseHolder, type LeaseRange } from './leases.ts'
import type { ReturnedRange } from './returned.ts'

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

/**
 * Leases what one pull is given, and keeps count of what it may still be given. Messages that retention or a purge
 * deleted meanwhile, or that were cancelled, are passed over.
 */
export class Leasing {
  readonly request: GrantRequest
  readonly grants: Grant[] = []
  readonly #decoded: DecodedBatches
  readonly #nextLeaseId: () => number
  #suspectAllowed: boolean
  #messagesLeft: number
  #bytesLeft: number

  constructor(request: GrantRequest, decoded: DecodedBatches, nextLeaseId: () => number) {
    this.request = request
    this.#decoded = decoded
    this.#nextLeaseId = nextLeaseId
    this.#suspectAllowed = request.suspectAllowed
    this.#messagesLeft = request.limits.messagesMax
    this.#bytesLeft = request.limits.bytesMax
  }

  get messagesLeft(): number {
    return this.#messagesLeft
  }

  get bytesLeft(): number {
    return this.#bytesLeft
  }

  isFull(): boolean {
    return this.#messagesLeft <= 0 || (this.#bytesLeft <= 0 && this.grants.length > 0)
  }

  /** Whether messages with so many crashes may go out now. */
  allows(history: { readonly crashes: number }): boolean {
    return this.#suspectAllowed || !this.request.subscription.isSuspect(history)
  }

  /** Says whether there was still a message to lease. */
  row(row: Row): boolean {
    const { subscription, nowMs } = this.request
    const { partition, offset, history } = row
    const range = { partition, from: offset, to: offset + 1 }
    const messages = history.event ? [storedMessage(history.event, offset)] : this.#read(range)
    if (messages.length > 0) {
      subscription.rows.lease(row)
      return this.#lease(range, history, messages, row)
    }
    subscription.rows.remove(row)
    subscription.chains.advance(partition, row.key, nowMs)
    return false
  }

  /** Leases as much of the front of a returned range as there is room for. Says whether there was a message to lease. */
  returned(returned: ReturnedRange, messagesMax: number): boolean {
    const { subscription } = this.request
    const log = subscription.topic.log(returned.partition)
    const from = Math.max(returned.from, Math.min(log.firstOffset, returned.to))
    const end = Math.min(returned.to, from + Math.min(messagesMax, this.#messagesLeft))
    const to = log.reach(from, end, this.#bytesLeft)
    subscription.returned.takeFront(returned, to)
    const range = { partition: returned.partition, from, to }
    return this.#lease(range, { ...FIRST_DELIVERY, crashes: returned.crashes }, this.#read(range))
  }

  fresh(range: LeaseRange): void {
    this.request.subscription.move(range.partition, range.to)
    this.#lease(range, FIRST_DELIVERY, this.#read(range))
  }

  #read({ partition, from, to }: LeaseRange): readonly StoredMessage[] {
    const log = this.request.subscription.topic.log(partition)
    return this.#decoded.read(log, from, to).filter(({ offset }) => !log.isCancelled(offset))
  }

  #lease(range: LeaseRange, history: History, messages: readonly StoredMessage[], row?: Row): boolean {
    if (messages.length === 0) return false
    const { subscription, holder } = this.request
    const isolated = subscription.isSuspect(history)
    const lease = new Lease(this.#nextLeaseId(), holder, range, history, { row, isolated })
    settleGaps(lease, messages)
    subscription.leases.set(lease.id, lease)
    const takeover = subscription.ordered ? subscription.ownership.announce(range.partition) : undefined
    const bytes = this.#bytesOf(range, history)
    const { partition } = range
    const { attempt, crashes, failures } = history
    const grant = { lease: lease.id, partition, messages, attempt, setAside: row !== undefined, crashes, isolated }
    this.grants.push({ ...grant, failures, bytes, ...(takeover && { takeover }) })
    this.#messagesLeft -= messages.length
    this.#bytesLeft -= bytes
    if (isolated) this.#suspectAllowed = false
    return true
  }

  #bytesOf({ partition, from, to }: LeaseRange, { event }: History): number {
    if (event) return Buffer.byteLength(JSON.stringify(event))
    return this.request.subscription.topic.log(partition).bytesOf(from, to)
  }
}

/** What is not handed out counts as settled. */
function settleGaps(lease: Lease, messages: readonly StoredMessage[]): void {
  const { from, to } = lease.range
  if (messages.length === to - from) return
  const handedOut = new Set(messages.map(({ offset }) => offset))
  for (let offset = from; offset < to; offset++) if (!handedOut.has(offset)) lease.settle(offset)
}
