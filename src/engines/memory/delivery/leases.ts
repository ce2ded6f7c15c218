import type { Failure, LeaseId, StoredEvent } from '../../../engine.ts'
import type { Row } from '../settlement/set-aside.ts'
import type { Session } from './sessions.ts'

/** The part of a source that the store needs to know. */
export interface LeaseHolder {
  readonly session: Session
  leasesLost(leases: readonly LeaseId[], reason: string): void
  cancelled(lease: Lease, offset: number): void
  /** It owns partitions beyond its share, of which messages are leased. */
  crowded(partitions: readonly number[]): void
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
  /** The one message was set aside before: its row. */
  readonly row: Row | undefined
  /** It holds one message, which was a suspect when it was leased. */
  readonly isolated: boolean
  readonly #settled: Uint8Array
  #unsettled: number

  constructor(
    id: LeaseId,
    holder: LeaseHolder,
    range: LeaseRange,
    history: History,
    kind: { readonly row: Row | undefined; readonly isolated: boolean },
  ) {
    this.id = id
    this.holder = holder
    this.range = range
    this.history = history
    this.row = kind.row
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
    if (!this.isOpen(offset)) return false
    this.#settled[offset - this.range.from] = 1
    this.#unsettled--
    return true
  }

  isOpen(offset: number): boolean {
    return this.#settled[offset - this.range.from] === 0
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
