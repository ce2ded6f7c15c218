import * as sql from '../sql/cancellation.ts'
import type { Statements } from './connection.ts'
import type { Log, TopicRow } from './log.ts'
import { isIntact } from './message-reader.ts'
import type { Subscriptions } from './subscriptions.ts'

export interface MessagePosition {
  readonly partition: number
  readonly offset: number
}

/** `next`: where to go on looking. */
export type Found = { readonly position: MessagePosition | undefined } | { readonly next: MessagePosition }

interface BatchTime {
  readonly baseOffset: number
  readonly count: number
  readonly lastTimeMs: number
}

interface LookedThrough {
  readonly batchId: number
  readonly nextOffset: number
  readonly bytes: number
  readonly found: 0 | 1
}

/** As much text as is looked through at a time: other processes wait for the lock meanwhile. */
const LOOKED_THROUGH_BYTES_MAX = 2 ** 21

const UUID_OF_VERSION_7 = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/**
 * Finds messages by their id, for which the log has no index: it would cost every message something, and few are ever
 * looked for. Ids that publishers gave are remembered with their place, for a time; those of our own making tell when
 * their batch was published, and batches of a partition are in the order of their times but for delayed ones. Whatever
 * is not found so is looked for in all that some subscription may still have to read.
 */
export class MessageSearch {
  readonly #statements: Statements
  readonly #log: Log
  readonly #subscriptions: Subscriptions

  constructor(statements: Statements, log: Log, subscriptions: Subscriptions) {
    this.#statements = statements
    this.#log = log
    this.#subscriptions = subscriptions
  }

  /** Looks where the message is likely to be; or, once `from` is given, through everything from there on. */
  find(topic: TopicRow, id: string, from: MessagePosition | undefined): Found {
    const position = from ? undefined : (this.#remembered(topic, id) ?? this.#atTime(topic, id))
    return position ? { position } : this.#lookThrough(topic, id, from)
  }

  #remembered({ topicId }: TopicRow, id: string): MessagePosition | undefined {
    return (
      this.#statements.get<MessagePosition>(sql.PLACE_OF_ID, topicId, id) ??
      this.#statements.get<MessagePosition>(sql.PLACE_OF_REDRIVEN, topicId, id)
    )
  }

  #atTime({ topicId }: TopicRow, id: string): MessagePosition | undefined {
    const timeMs = timeOf(id)
    if (timeMs === undefined) return undefined
    for (const partition of this.#log.partitionNumbers(topicId)) {
      const floor = this.#floor(topicId, partition)
      const first = this.#firstReaching(topicId, partition, timeMs, floor)
      const last = this.#firstReaching(topicId, partition, timeMs + 1, first)
      const values = [topicId, partition, first, last, timeMs, JSON.stringify(id)]
      for (const { batchId } of this.#statements.all<{ batchId: number }>(sql.BATCHES_AT_TIME, ...values)) {
        const offset = this.#offsetIn(batchId, id)
        if (offset !== undefined) return { partition, offset }
      }
    }
    return undefined
  }

  // Where the first batch from `from` on begins whose messages are not all older, by halving.
  #firstReaching(topicId: number, partition: number, timeMs: number, from: number): number {
    let low = from
    let high = this.#log.nextOffset(topicId, partition)
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const batch = this.#statements.get<BatchTime>(sql.BATCH_BEFORE, topicId, partition, middle)
      if (batch && batch.lastTimeMs >= timeMs) high = batch.baseOffset
      else low = Math.max(middle + 1, batch ? batch.baseOffset + batch.count : 0)
    }
    return high
  }

  #lookThrough({ topicId }: TopicRow, id: string, from: MessagePosition | undefined): Found {
    const text = JSON.stringify(id)
    let bytesLeft = LOOKED_THROUGH_BYTES_MAX
    for (const partition of this.#log.partitionNumbers(topicId)) {
      if (from && partition < from.partition) continue
      let offset = from?.partition === partition ? from.offset : this.#floor(topicId, partition)
      for (;;) {
        if (bytesLeft <= 0) return { next: { partition, offset } }
        const batches = this.#statements.all<LookedThrough>(sql.LOOK_THROUGH_BATCHES, topicId, partition, offset, text)
        const position = this.#positionIn(partition, batches, id)
        if (position) return { position }
        if (batches.length === 0) break
        offset = batches.at(-1)!.nextOffset
        bytesLeft = batches.reduce((left, { bytes }) => left - bytes, bytesLeft)
      }
    }
    return { position: undefined }
  }

  #positionIn(partition: number, batches: readonly LookedThrough[], id: string): MessagePosition | undefined {
    for (const { batchId, found } of batches) {
      const offset = found === 1 ? this.#offsetIn(batchId, id) : undefined
      if (offset !== undefined) return { partition, offset }
    }
    return undefined
  }

  // The same text may stand in a message's data.
  #offsetIn(batchId: number, id: string): number | undefined {
    const batch = this.#log.readBatch(batchId)
    if (!batch || !isIntact(batch)) return undefined
    const place = (JSON.parse(batch.data) as { id: string }[]).findIndex((event) => event.id === id)
    return place < 0 ? undefined : batch.baseOffset + place
  }

  // The lowest offset that any subscription may still have to read.
  #floor(topicId: number, partition: number): number {
    const ids = this.#subscriptions.idsOfTopic(topicId)
    if (ids.length === 0) return 0
    return Math.min(...ids.map((id) => this.#subscriptions.floor(id, partition)))
  }
}

function timeOf(id: string): number | undefined {
  const parts = UUID_OF_VERSION_7.exec(id)
  return parts ? Number.parseInt(parts[1]! + parts[2]!, 16) : undefined
}
