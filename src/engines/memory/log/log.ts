import { Buffer } from 'node:buffer'
import { firstPlace } from '../../../collections/first-place.ts'

/** Messages that were stored together, encoded: see `src/message/decode.ts` for the two texts. */
export interface Batch {
  readonly baseOffset: number
  readonly count: number
  readonly bytes: number
  readonly firstTimeMs: number
  readonly lastTimeMs: number
  readonly shared: string
  readonly data: string
}

export interface LogEntry {
  readonly json: string
  readonly timeMs: number
}

/**
 * One partition of a topic: record batches without gaps between them, in offset order. It grows at the end and is
 * deleted batch by batch from the front; offsets are never used twice. Cancelled messages stay where they are, but are
 * granted to nobody.
 */
export class PartitionLog {
  readonly #batches: Batch[] = []
  readonly #cancelled = new Set<number>()
  #nextOffset = 0
  #bytes = 0

  get nextOffset(): number {
    return this.#nextOffset
  }

  get firstOffset(): number {
    return this.#batches[0]?.baseOffset ?? this.#nextOffset
  }

  get messages(): number {
    return this.#nextOffset - this.firstOffset
  }

  get bytes(): number {
    return this.#bytes
  }

  get oldest(): Batch | undefined {
    return this.#batches[0]
  }

  /** Returns the offset of the first entry. */
  append(shared: string, entries: readonly LogEntry[]): number {
    const baseOffset = this.#nextOffset
    const data = `[${entries.map((entry) => entry.json).join(',')}]`
    const times = entries.map((entry) => entry.timeMs)
    const bytes = Buffer.byteLength(data)
    this.#batches.push({
      baseOffset,
      count: entries.length,
      bytes,
      firstTimeMs: times.reduce((earliest, timeMs) => Math.min(earliest, timeMs)),
      lastTimeMs: times.reduce((latest, timeMs) => Math.max(latest, timeMs)),
      shared,
      data,
    })
    this.#nextOffset += entries.length
    this.#bytes += bytes
    return baseOffset
  }

  /** The batches that hold messages of `[from, to)`. */
  *batches(from: number, to: number): Generator<Batch> {
    for (let place = this.#placeOf(from); place < this.#batches.length; place++) {
      const batch = this.#batches[place]!
      if (batch.baseOffset >= to) return
      yield batch
    }
  }

  cancel(offset: number): void {
    if (offset >= this.firstOffset) this.#cancelled.add(offset)
  }

  isCancelled(offset: number): boolean {
    return this.#cancelled.has(offset)
  }

  /** How many are cancelled from `offset` on. */
  cancelledFrom(offset: number): number {
    let cancelled = 0
    for (const other of this.#cancelled) if (other >= offset) cancelled++
    return cancelled
  }

  /** What the messages of `[from, to)` take up, about. */
  bytesOf(from: number, to: number): number {
    let bytes = 0
    for (const batch of this.batches(from, to)) {
      const shared = Math.min(to, batch.baseOffset + batch.count) - Math.max(from, batch.baseOffset)
      bytes += (batch.bytes / batch.count) * shared
    }
    return bytes
  }

  /** How far from `from` on, up to `end`, about so many bytes reach: over one message at least. */
  reach(from: number, end: number, bytesMax: number): number {
    let reached = from
    let bytesLeft = bytesMax
    for (const batch of this.batches(from, end)) {
      const messageBytes = batch.bytes / batch.count
      const batchEnd = Math.min(end, batch.baseOffset + batch.count)
      const fitting = Math.ceil(bytesLeft / messageBytes)
      if (reached + fitting < batchEnd) return Math.max(reached + Math.max(0, fitting), from + 1)
      bytesLeft -= (batchEnd - reached) * messageBytes
      reached = batchEnd
    }
    return end
  }

  deleteOldest(): number {
    const batch = this.#batches.shift()
    if (!batch) return 0
    this.#bytes -= batch.bytes
    for (const offset of this.#cancelled) if (offset < batch.baseOffset + batch.count) this.#cancelled.delete(offset)
    return batch.count
  }

  deleteAll(): number {
    const deleted = this.messages
    this.#batches.length = 0
    this.#cancelled.clear()
    this.#bytes = 0
    return deleted
  }

  /** The place of the first batch that ends beyond `offset`, by binary search. */
  #placeOf(offset: number): number {
    return firstPlace(this.#batches, ({ baseOffset, count }) => baseOffset + count > offset)
  }
}
