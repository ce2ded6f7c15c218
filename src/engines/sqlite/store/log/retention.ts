import * as sql from '../../sql/retention.ts'
import type { Subscriptions } from '../consumers/subscriptions.ts'
import type { Statements } from '../file/connection.ts'
import type { Log } from './log.ts'

interface TopicToRetain {
  readonly topicId: number
  readonly kind: 'topic' | 'queue'
  readonly ageMs: number
  readonly bytesMax: number | null
  readonly dropUnread: 0 | 1
  readonly hadSubscription: 0 | 1
}

interface OldBatch {
  readonly batchId: number
  readonly baseOffset: number
  readonly count: number
  readonly lastTimeMs: number
  readonly bytes: number
}

/** Deletes record batches that nobody needs any more: a whole batch or nothing, from the oldest on. */
export class Retention {
  readonly #statements: Statements
  readonly #log: Log
  readonly #subscriptions: Subscriptions

  constructor(statements: Statements, log: Log, subscriptions: Subscriptions) {
    this.#statements = statements
    this.#log = log
    this.#subscriptions = subscriptions
  }

  /** One round over all topics, a few batches of each. Returns how many messages were deleted: none when done. */
  apply(nowMs: number): number {
    let deleted = 0
    for (const topic of this.#statements.all<TopicToRetain>(sql.TOPICS_TO_RETAIN)) {
      deleted += this.#applyToTopic(topic, nowMs)
    }
    return deleted
  }

  /** Deletes what a queue's subscription has settled. */
  trimQueue(topicId: number, subscriptionId: number): void {
    for (const { partition } of this.#statements.all<{ partition: number }>(sql.PARTITIONS_WITH_MESSAGES, topicId)) {
      const floor = this.#subscriptions.floor(subscriptionId, partition)
      this.#delete(topicId, partition, (batch) => batch.baseOffset + batch.count <= floor)
    }
  }

  #applyToTopic(topic: TopicToRetain, nowMs: number): number {
    let excess = topic.bytesMax === null ? 0 : this.#storedBytes(topic.topicId) - topic.bytesMax
    let deleted = 0
    for (const partition of this.#log.partitionNumbers(topic.topicId)) {
      const floor = this.#floor(topic, partition)
      deleted += this.#delete(topic.topicId, partition, (batch) => {
        const read = batch.baseOffset + batch.count <= floor
        if (topic.kind === 'queue' && read) return true
        const outlived = batch.lastTimeMs < nowMs - topic.ageMs || excess > 0
        if (!outlived || !(read || topic.dropUnread)) return false
        excess -= batch.bytes
        return true
      })
    }
    return deleted
  }

  #delete(topicId: number, partition: number, isUnneeded: (batch: OldBatch) => boolean): number {
    let deleted = 0
    let end = 0
    for (const batch of this.#statements.all<OldBatch>(sql.OLDEST_BATCHES, topicId, partition)) {
      if (!isUnneeded(batch)) break
      this.#statements.run(sql.DELETE_BATCH, batch.batchId)
      deleted += batch.count
      end = batch.baseOffset + batch.count
    }
    if (deleted > 0) this.#statements.run(sql.DELETE_CANCELLED, topicId, partition, end)
    return deleted
  }

  // Everything below has been settled by every subscription. A topic that has never had one keeps all for the first.
  #floor(topic: TopicToRetain, partition: number): number {
    if (!topic.hadSubscription) return 0
    const ids = this.#subscriptions.idsOfTopic(topic.topicId)
    return Math.min(Number.MAX_SAFE_INTEGER, ...ids.map((id) => this.#subscriptions.floor(id, partition)))
  }

  #storedBytes(topicId: number): number {
    return this.#statements.get<{ bytes: number }>(sql.STORED_BYTES, topicId)!.bytes
  }
}
