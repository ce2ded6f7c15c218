import type { StoredMessage } from '../../../engine.ts'

export interface DecodedBatch {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly bytes: number
  /** Undefined when they could not be read; a function until somebody wants them. */
  messages: readonly StoredMessage[] | undefined | (() => readonly StoredMessage[])
}

interface Place {
  readonly topicId: number
  readonly partition: number
  readonly from: number
  readonly to: number
}

const KEPT_BYTES_MAX = 32 * 2 ** 20

/**
 * The batches that were used last, up to a limit of their encoded size. The Map's insertion order is the order of use;
 * the batches of a partition stand in offset order as well, as a range may begin in the middle of one.
 */
export class DecodedBatches {
  readonly #used = new Set<DecodedBatch>()
  readonly #partitions = new Map<string, DecodedBatch[]>()
  readonly #topics = new Set<number>()
  readonly #keptBytesMax: number
  #bytes = 0

  constructor(keptBytesMax = KEPT_BYTES_MAX) {
    this.#keptBytesMax = keptBytesMax
  }

  static messagesOf(batch: DecodedBatch): readonly StoredMessage[] | undefined {
    if (typeof batch.messages === 'function') batch.messages = batch.messages()
    return batch.messages
  }

  /** Whether messages of the topic were ever asked for. */
  reads(topicId: number): boolean {
    return this.#topics.has(topicId)
  }

  /** All of the range, or undefined when a part of it is not here. What is added later may push it out. */
  take(range: Place): readonly DecodedBatch[] | undefined {
    this.#topics.add(range.topicId)
    const found = this.#of(range)
    let next = range.from
    for (const { baseOffset, count } of found) {
      if (baseOffset > next) return undefined
      next = baseOffset + count
    }
    if (next < range.to) return undefined
    for (const batch of found) this.#touch(batch)
    return found
  }

  clear(): void {
    this.#used.clear()
    this.#partitions.clear()
    this.#topics.clear()
    this.#bytes = 0
  }

  /** Returns the one that is kept: it may be here already. */
  add(batch: DecodedBatch): DecodedBatch {
    const batches = this.#batches(batch)
    const place = firstFrom(batches, batch.baseOffset)
    const known = batches[place]
    if (known?.baseOffset === batch.baseOffset) return known
    batches.splice(place, 0, batch)
    this.#used.add(batch)
    this.#bytes += batch.bytes
    this.#forgetOldest()
    return batch
  }

  #of({ topicId, partition, from, to }: Place): DecodedBatch[] {
    const batches = this.#batches({ topicId, partition })
    const start = firstFrom(batches, from)
    let end = start
    while (end < batches.length && batches[end]!.baseOffset < to) end++
    return batches.slice(start, end)
  }

  #batches({ topicId, partition }: Pick<Place, 'topicId' | 'partition'>): DecodedBatch[] {
    const name = `${topicId}/${partition}`
    const batches = this.#partitions.get(name) ?? []
    this.#partitions.set(name, batches)
    return batches
  }

  #touch(batch: DecodedBatch): void {
    this.#used.delete(batch)
    this.#used.add(batch)
  }

  #forgetOldest(): void {
    for (const batch of this.#used) {
      if (this.#bytes <= this.#keptBytesMax || this.#used.size === 1) return
      this.#used.delete(batch)
      this.#bytes -= batch.bytes
      const batches = this.#batches(batch)
      batches.splice(batches.indexOf(batch), 1)
    }
  }
}

/** The place of the first batch that ends beyond `offset`, by binary search. */
function firstFrom(batches: readonly DecodedBatch[], offset: number): number {
  let low = 0
  let high = batches.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const batch = batches[middle]!
    if (batch.baseOffset + batch.count <= offset) low = middle + 1
    else high = middle
  }
  return low
}
