import type { Failure, LeaseId, StoredEvent } from '../../engine.ts'
import type { Session } from './sessions.ts'

/** The part of a source that a lease needs to know. */
export interface LeaseHolder {
  readonly session: Session
  leasesLost(leases: readonly LeaseId[], reason: string): void
}

/** What is known of a message, or of a range of them, beside where it stands. */
export interface History {
  readonly attempt: number
  readonly crashes: number
  readonly failures: readonly Failure[]
  /** The message itself, kept apart from the log: it was redriven, and outlives retention. */
  readonly event?: StoredEvent
}

/** Messages that nobody has had before. */
export const FIRST_DELIVERY: History = { attempt: 1, crashes: 0, failures: [] }

export interface LeaseRange {
  readonly partition: number
  readonly from: number
  readonly to: number
}

/**
 * The right of one source to the messages of `[from, to)`. Each message is settled once; the first settlement counts.
 * When the last one is settled the lease is over.
 */
export class Lease {
  readonly id: LeaseId
  readonly holder: LeaseHolder
  readonly range: LeaseRange
  readonly history: History
  /** It came from a retry row, and goes back to one. */
  readonly single: boolean
  /** It holds one message, which was a suspect when it was leased. */
  readonly isolated: boolean
  readonly #settled: Uint8Array
  #unsettled: number

  constructor(
    id: LeaseId,
    holder: LeaseHolder,
    range: LeaseRange,
    history: History,
    kind: { readonly single: boolean; readonly isolated: boolean },
  ) {
    this.id = id
    this.holder = holder
    this.range = range
    this.history = history
    this.single = kind.single
    this.isolated = kind.isolated
    this.#unsettled = range.to - range.from
    this.#settled = new Uint8Array(this.#unsettled)
  }

  get unsettled(): number {
    return this.#unsettled
  }

  /** The first offset that still counts for retention. */
  get firstUnsettled(): number {
    const place = this.#settled.indexOf(0)
    return place === -1 ? this.range.to : this.range.from + place
  }

  /** Whether `offset` belongs to the lease and was not settled before. */
  settle(offset: number): boolean {
    const place = offset - this.range.from
    if (this.#settled[place] !== 0) return false
    this.#settled[place] = 1
    this.#unsettled--
    return true
  }

  settleRange(from: number, to: number): void {
    const end = Math.min(to, this.range.to)
    for (let offset = Math.max(from, this.range.from); offset < end; offset++) this.settle(offset)
  }

  /** What is unsettled, as runs without gaps, within `[from, to)` of the lease. */
  *unsettledRuns(to: number = this.range.to): Generator<LeaseRange> {
    const { partition } = this.range
    const end = Math.min(to, this.range.to)
    for (let from = this.range.from; from < end; from++) {
      if (this.#settled[from - this.range.from] !== 0) continue
      let until = from + 1
      while (until < end && this.#settled[until - this.range.from] === 0) until++
      yield { partition, from, to: until }
      from = until
    }
  }
}
