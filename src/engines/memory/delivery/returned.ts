import type { MessagePlace } from '../subscription.ts'
import type { LeaseRange } from './leases.ts'

/** A range that came back unsettled, from a release or a lost session. All are first attempts. */
export interface ReturnedRange extends LeaseRange {
  readonly crashes: number
}

/** The ranges behind a subscription's cursors that wait to be granted again, in offset order. None overlap. */
export class ReturnedRanges {
  #ranges: ReturnedRange[] = []

  get all(): readonly ReturnedRange[] {
    return this.#ranges
  }

  get messages(): number {
    return this.#ranges.reduce((total, range) => total + range.to - range.from, 0)
  }

  has({ partition, offset }: MessagePlace): boolean {
    return this.#ranges.some((range) => range.partition === partition && range.from <= offset && offset < range.to)
  }

  first(partition: number): ReturnedRange | undefined {
    return this.#ranges.find((range) => range.partition === partition)
  }

  add(range: ReturnedRange): void {
    const place = this.#ranges.findIndex((other) => isBefore(range, other))
    this.#ranges.splice(place === -1 ? this.#ranges.length : place, 0, range)
  }

  /** Takes `[from, to)` off the front of a range. */
  takeFront(range: ReturnedRange, to: number): void {
    const place = this.#ranges.indexOf(range)
    const rest = to < range.to ? [{ ...range, from: to }] : []
    this.#ranges.splice(place, 1, ...rest)
  }

  /** Takes one message out. Says whether it was there. */
  takeOut(partition: number, offset: number): boolean {
    const range = this.#ranges.find((each) => each.partition === partition && each.from <= offset && offset < each.to)
    if (!range) return false
    const rests = [
      { ...range, to: offset },
      { ...range, from: offset + 1 },
    ].filter(({ from, to }) => from < to)
    this.#ranges.splice(this.#ranges.indexOf(range), 1, ...rests)
    return true
  }

  /** Forgets the ranges of a partition from `offset` on. */
  cut(partition: number, offset: number): void {
    this.#ranges = this.#ranges.flatMap((range) => {
      if (range.partition !== partition || range.to <= offset) return [range]
      return range.from < offset ? [{ ...range, to: offset }] : []
    })
  }

  clear(): void {
    this.#ranges = []
  }
}

function isBefore(range: LeaseRange, other: LeaseRange): boolean {
  return range.partition === other.partition ? range.from < other.from : range.partition < other.partition
}
