import { Buffer } from 'node:buffer'

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
 * deleted batch by batch from the front; offsets are never used twice.
 */
export class PartitionLog {
  readonly #batches: Batch[] = []
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

  deleteOldest(): number {
    const batch = this.#batches.shift()
    this.#bytes -= batch?.bytes ?? 0
    return batch?.count ?? 0
  }

  deleteAll(): number {
    const deleted = this.messages
    this.#batches.length = 0
    this.#bytes = 0
    return deleted
  }

  /** The place of the first batch that ends beyond `offset`, by binary search. */
  #placeOf(offset: number): number {
    let low = 0
    let high = this.#batches.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const batch = this.#batches[middle]!
      if (batch.baseOffset + batch.count <= offset) low = middle + 1
      else high = middle
    }
    return low
  }
}
