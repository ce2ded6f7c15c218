import type { History, LeaseRange } from './leases.ts'

/** A range that came back unsettled, from a release or a lost session. All are first attempts. */
export interface ReturnedRange extends LeaseRange {
  readonly crashes: number
}

/** One message that waits for its time. */
export interface RetryRow extends History {
  readonly partition: number
  readonly offset: number
  readonly dueAtMs: number
  /** It came back unsettled: its time is now, and its attempt still the same. */
  readonly returned: boolean
}

/**
 * The messages behind a subscription's cursors that are neither settled nor leased: returned ranges in offset order,
 * and retry rows in the order in which they are due. No message is in both, nor twice in either.
 */
export class WaitingMessages {
  #ranges: ReturnedRange[] = []
  #rows: RetryRow[] = []

  get ranges(): readonly ReturnedRange[] {
    return this.#ranges
  }

  get rows(): readonly RetryRow[] {
    return this.#rows
  }

  addRange(range: ReturnedRange): void {
    const place = this.#ranges.findIndex((other) => isBefore(range, other))
    this.#ranges.splice(place === -1 ? this.#ranges.length : place, 0, range)
  }

  addRow(row: RetryRow): void {
    let low = 0
    let high = this.#rows.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#rows[middle]!.dueAtMs <= row.dueAtMs) low = middle + 1
      else high = middle
    }
    this.#rows.splice(low, 0, row)
  }

  /** Takes `[from, to)` off the front of a range. */
  takeFront(range: ReturnedRange, to: number): void {
    const place = this.#ranges.indexOf(range)
    const rest = to < range.to ? [{ ...range, from: to }] : []
    this.#ranges.splice(place, 1, ...rest)
  }

  takeRow(row: RetryRow): void {
    this.#rows.splice(this.#rows.indexOf(row), 1)
  }

  keepRows(isKept: (row: RetryRow) => boolean): void {
    this.#rows = this.#rows.filter(isKept)
  }

  /** Forgets the ranges of a partition from `offset` on. */
  cutRanges(partition: number, offset: number): void {
    this.#ranges = this.#ranges.flatMap((range) => {
      if (range.partition !== partition || range.to <= offset) return [range]
      return range.from < offset ? [{ ...range, to: offset }] : []
    })
  }

  clear(): void {
    this.#ranges = []
    this.#rows = []
  }

  /** When the next row that is not due yet will be. */
  nextDueMs(nowMs: number): number | undefined {
    return this.#rows.find((row) => row.dueAtMs > nowMs)?.dueAtMs
  }
}

function isBefore(range: LeaseRange, other: LeaseRange): boolean {
  return range.partition === other.partition ? range.from < other.from : range.partition < other.partition
}
