import { batchChecksum } from '../../../checksum.ts'
import type { BatchRow, Log } from './log.ts'

export function isIntact(batch: BatchRow): boolean {
  return typeof batch.data === 'string' && batchChecksum(batch) === batch.crc32
}

/** Reads single messages out of record batches, for dead letters. Keeps the last batch: the next is often beside it. */
export class MessageReader {
  readonly #log: Log
  #loaded = ''
  #events: readonly object[] = []

  constructor(log: Log) {
    this.#log = log
  }

  /** The complete event as JSON; undefined when it is gone or damaged. */
  eventText(topicId: number, partition: number, offset: number): string | undefined {
    const place = this.#log.findBatches(topicId, partition, offset, 1)[0]
    if (!place || place.baseOffset > offset) return undefined
    // Row ids are used again once a batch is deleted; a partition's offsets never are.
    const name = `${topicId}/${partition}/${place.baseOffset}`
    if (name !== this.#loaded) this.#load(name, place.batchId)
    const event = this.#events[offset - place.baseOffset]
    return event === undefined ? undefined : JSON.stringify(event)
  }

  #load(name: string, batchId: number): void {
    const batch = this.#log.readBatch(batchId)
    this.#events = batch && isIntact(batch) ? completeEvents(batch) : []
    this.#loaded = name
  }
}

export function completeEvents(batch: BatchRow): object[] {
  const shared = JSON.parse(batch.shared) as object
  const own = JSON.parse(batch.data) as object[]
  return own.map((event) => ({ specversion: '1.0', ...shared, ...event }))
}
