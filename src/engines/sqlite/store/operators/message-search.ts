import * as sql from '../../sql/cancellation.ts'
import type { Subscriptions } from '../consumers/subscriptions.ts'
import type { Statements } from '../file/connection.ts'
import type { Log, TopicRow } from '../log/log.ts'
import { isIntact } from '../log/message-reader.ts'

export interface MessagePosition {
  readonly partition: number
  readonly offset: number
}

interface DatedPosition extends MessagePosition {
  readonly timeMs: number
}

/** How far the log was looked through, and the youngest message found on the way. */
export interface SearchProgress extends MessagePosition {
  readonly youngest: DatedPosition | undefined
}

/** `next`: where to go on looking. */
export type Found = { readonly position: MessagePosition | undefined } | { readonly next: SearchProgress }

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
 * is not found so is looked for in all that some subscription may still have to read, and among what was redriven. That
 * an id stands there more than once is possible, if its deduplication window was over: the youngest message is meant.
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
  find(topic: TopicRow, id: string, from: SearchProgress | undefined): Found {
    if (from) return this.#lookThrough(topic, id, from)
    const remembered = this.#statements.get<MessagePosition>(sql.PLACE_OF_ID, topic.topicId, id)
    if (remembered) return { position: remembered }
    const redriven = this.#redriven(topic, id)
    // Of those with an id of our own making there is only one.
    const position = timeOf(id) === undefined ? undefined : (redriven ?? this.#atTime(topic, id))
    return position ? { position } : this.#lookThrough(topic, id, { partition: 0, offset: 0, youngest: redriven })
  }

  #redriven({ topicId }: TopicRow, id: string): DatedPosition | undefined {
    const rows = this.#statements.all<MessagePosition & { event: string }>(sql.REDRIVEN_WITH_ID, topicId, id)
    const found = rows.map(({ event, ...position }) => {
      const { time } = JSON.parse(event) as { time: string }
      return { ...position, timeMs: Date.parse(time) }
    })
    return found.reduce<DatedPosition | undefined>(youngerOf, undefined)
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
        const position = this.#positionIn(partition, batchId, id)
        if (position) return position
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

  #lookThrough({ topicId }: TopicRow, id: string, from: SearchProgress): Found {
    const text = JSON.stringify(id)
    let { youngest } = from
    let bytesLeft = LOOKED_THROUGH_BYTES_MAX
    for (const partition of this.#log.partitionNumbers(topicId)) {
      if (partition < from.partition) continue
      let offset = Math.max(this.#floor(topicId, partition), from.partition === partition ? from.offset : 0)
      for (;;) {
        if (bytesLeft <= 0) return { next: { partition, offset, youngest } }
        const batches = this.#statements.all<LookedThrough>(sql.LOOK_THROUGH_BATCHES, topicId, partition, offset, text)
        if (batches.length === 0) break
        for (const { batchId, found } of batches) {
          if (found === 1) youngest = youngerOf(youngest, this.#positionIn(partition, batchId, id))
        }
        offset = batches.at(-1)!.nextOffset
        bytesLeft = batches.reduce((left, { bytes }) => left - bytes, bytesLeft)
      }
    }
    return { position: youngest }
  }

  // The last one with the id. The same text may stand in a message's data.
  #positionIn(partition: number, batchId: number, id: string): DatedPosition | undefined {
    const batch = this.#log.readBatch(batchId)
    if (!batch || !isIntact(batch)) return undefined
    const events = JSON.parse(batch.data) as { id: string; time: string }[]
    return events
      .map((event, place) => ({ event, partition, offset: batch.baseOffset + place }))
      .filter(({ event }) => event.id === id)
      .map(({ event, ...position }) => ({ ...position, timeMs: Date.parse(event.time) }))
      .reduce<DatedPosition | undefined>(youngerOf, undefined)
  }

  // The lowest offset that any subscription may still have to read.
  #floor(topicId: number, partition: number): number {
    const ids = this.#subscriptions.idsOfTopic(topicId)
    if (ids.length === 0) return 0
    return Math.min(...ids.map((id) => this.#subscriptions.floor(id, partition)))
  }
}

function youngerOf(one: DatedPosition | undefined, other: DatedPosition | undefined): DatedPosition | undefined {
  return one && (!other || one.timeMs > other.timeMs) ? one : other
}

function timeOf(id: string): number | undefined {
  const parts = UUID_OF_VERSION_7.exec(id)
  return parts ? Number.parseInt(parts[1]! + parts[2]!, 16) : undefined
}
