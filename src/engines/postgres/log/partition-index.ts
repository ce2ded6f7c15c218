import { firstPlace } from '../../../collections/first-place.ts'

/** What is known of one batch without its messages. */
export interface BatchDescriptor {
  readonly baseOffset: number
  readonly count: number
  readonly bytes: number
}

interface Stretch {
  readonly from: number
  readonly to: number
  readonly messageBytes: number
}

/** Of a topic that is read at two far ends, those in between are forgotten. */
const KNOWN_MAX = 4_096
const GUESSED_MESSAGE_BYTES = 512

/** The batches that are known of one partition: see `log-index.ts`. */
export class PartitionIndex {
  /** In offset order, with gaps. */
  #batches: BatchDescriptor[] = []
  #firstOffset = 0
  #nextOffset = 0

  get firstOffset(): number {
    return this.#firstOffset
  }

  get nextOffset(): number {
    return this.#nextOffset
  }

  /** They only ever rise: what says otherwise has looked earlier. */
  moveEnds(firstOffset: number, nextOffset: number): void {
    this.#nextOffset = Math.max(this.#nextOffset, nextOffset)
    if (firstOffset <= this.#firstOffset) return
    this.#firstOffset = firstOffset
    this.#batches.splice(0, this.#placeOf(firstOffset))
  }

  /** Somebody who is far behind hears of it later. */
  append(batch: BatchDescriptor): void {
    if (this.#batches.length < KNOWN_MAX / 2) this.add(batch)
    else this.moveEnds(0, batch.baseOffset + batch.count)
  }

  add(batch: BatchDescriptor): void {
    const { baseOffset, count } = batch
    if (baseOffset + count <= this.#firstOffset) return
    this.#nextOffset = Math.max(this.#nextOffset, baseOffset + count)
    const place = this.#placeOf(baseOffset)
    if (this.#batches[place]?.baseOffset === baseOffset) return
    this.#batches.splice(place, 0, batch)
    if (this.#batches.length > KNOWN_MAX) this.#batches.splice(0, KNOWN_MAX / 2)
  }

  /** Where from `offset` on the first message is whose batch is not known. */
  unknownFrom(offset: number): number {
    let from = Math.max(offset, this.#firstOffset)
    for (let place = this.#placeOf(from); place < this.#batches.length; place++) {
      const { baseOffset, count } = this.#batches[place]!
      if (baseOffset > from) break
      from = baseOffset + count
    }
    return from
  }

  reach(from: number, end: number, bytesMax: number): number {
    let bytesLeft = bytesMax
    for (const stretch of this.#stretches(from, end)) {
      const fitting = Math.max(0, Math.ceil(bytesLeft / stretch.messageBytes))
      if (stretch.from + fitting < stretch.to) return Math.max(stretch.from + fitting, from + 1)
      bytesLeft -= (stretch.to - stretch.from) * stretch.messageBytes
    }
    return end
  }

  bytesOf(from: number, to: number): number {
    let bytes = 0
    for (const stretch of this.#stretches(from, to)) bytes += (stretch.to - stretch.from) * stretch.messageBytes
    return bytes
  }

  /** Cuts `[from, to)` into parts with messages of one size: a batch's, or what is guessed where none is known. */
  *#stretches(from: number, to: number): Generator<Stretch> {
    let next = from
    let place = this.#placeOf(from)
    const near = this.#batches[Math.min(place, this.#batches.length - 1)]
    const guess = near ? near.bytes / near.count : GUESSED_MESSAGE_BYTES
    while (next < to) {
      const batch = this.#batches[place]
      if (!batch || batch.baseOffset > next) {
        const end = Math.min(to, batch?.baseOffset ?? to)
        yield { from: next, to: end, messageBytes: guess }
        next = end
        continue
      }
      const end = Math.min(to, batch.baseOffset + batch.count)
      yield { from: next, to: end, messageBytes: batch.bytes / batch.count }
      next = end
      place++
    }
  }

  /** The place of the first batch that ends beyond `offset`, by binary search. */
  #placeOf(offset: number): number {
    return firstPlace(this.#batches, ({ baseOffset, count }) => baseOffset + count > offset)
  }
}
