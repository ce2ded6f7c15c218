import type { StoredMessage } from '../../../engine.ts'
import { decodeBatch } from '../../../message/decode.ts'
import type { Batch, PartitionLog } from './log.ts'

const DECODED_BYTES_MAX = 16 * 1024 * 1024

/**
 * Decodes each batch once for all subscriptions, and keeps the most recently used ones up to a limit of their encoded
 * size. The Map's insertion order is the order of use.
 */
export class DecodedBatches {
  readonly #decoded = new Map<Batch, readonly StoredMessage[]>()
  #bytes = 0

  /** The messages of `[from, to)` that are still kept. */
  read(log: PartitionLog, from: number, to: number): StoredMessage[] {
    const found: StoredMessage[] = []
    for (const batch of log.batches(from, to)) {
      const start = Math.max(0, from - batch.baseOffset)
      const end = Math.min(batch.count, to - batch.baseOffset)
      const messages = this.#messages(batch)
      for (let place = start; place < end; place++) found.push(messages[place]!)
    }
    return found
  }

  #messages(batch: Batch): readonly StoredMessage[] {
    const known = this.#decoded.get(batch)
    if (known) this.#decoded.delete(batch)
    else this.#bytes += batch.bytes
    const messages = known ?? decodeBatch(batch.shared, batch.data, batch.baseOffset)
    this.#decoded.set(batch, messages)
    this.#forgetOldest()
    return messages
  }

  #forgetOldest(): void {
    for (const batch of this.#decoded.keys()) {
      if (this.#bytes <= DECODED_BYTES_MAX || this.#decoded.size === 1) return
      this.#decoded.delete(batch)
      this.#bytes -= batch.bytes
    }
  }
}
