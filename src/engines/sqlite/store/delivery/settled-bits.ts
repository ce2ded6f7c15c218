/** Which offsets of a leased range are settled: bit `i` stands for `from + i`. Stored as a blob, or null when none is. */
export class SettledBits {
  readonly from: number
  readonly to: number
  readonly #bytes: Uint8Array
  #open: number

  constructor(from: number, to: number, stored: Uint8Array | null) {
    this.from = from
    this.to = to
    this.#bytes = new Uint8Array((to - from + 7) >> 3)
    if (stored) this.#bytes.set(stored)
    this.#open = to - from - countBits(this.#bytes)
  }

  /** How many offsets are not settled. */
  get open(): number {
    return this.#open
  }

  isOpen(offset: number): boolean {
    if (offset < this.from || offset >= this.to) return false
    const bit = offset - this.from
    return (this.#bytes[bit >> 3]! & (1 << (bit & 7))) === 0
  }

  /** Settles one offset. Returns whether it was open until now; offsets outside of the range never are. */
  settle(offset: number): boolean {
    if (!this.isOpen(offset)) return false
    const bit = offset - this.from
    this.#bytes[bit >> 3]! |= 1 << (bit & 7)
    this.#open--
    return true
  }

  settleRange(from: number, to: number): void {
    const end = Math.min(to, this.to)
    for (let offset = Math.max(from, this.from); offset < end; offset++) this.settle(offset)
  }

  /** The open offsets as half-open ranges, in order, none touching the next. */
  openRanges(): [from: number, to: number][] {
    const ranges: [number, number][] = []
    for (let offset = this.from; offset < this.to; offset++) {
      if (!this.isOpen(offset)) continue
      const last = ranges.at(-1)
      if (last && last[1] === offset) last[1] = offset + 1
      else ranges.push([offset, offset + 1])
    }
    return ranges
  }

  /** The part [from, to) of the range as bits of its own. */
  slice(from: number, to: number): SettledBits {
    const part = new SettledBits(from, to, null)
    for (let offset = from; offset < to; offset++) if (!this.isOpen(offset)) part.settle(offset)
    return part
  }

  /** The same without settled offsets at either end; empty when nothing is open. */
  trimmed(): SettledBits {
    let from = this.from
    let to = this.to
    while (from < to && !this.isOpen(from)) from++
    while (to > from && !this.isOpen(to - 1)) to--
    return from === this.from && to === this.to ? this : this.slice(from, to)
  }

  stored(): Uint8Array | null {
    return this.#open === this.to - this.from ? null : this.#bytes
  }
}

function countBits(bytes: Uint8Array): number {
  let count = 0
  for (let byte of bytes) for (; byte !== 0; byte &= byte - 1) count++
  return count
}
