import type { StartPosition, SubscriptionConfig, SubscriptionRef } from '../../../../engine.ts'
import { PosthornError } from '../../../../errors.ts'
import { DELETE_PLACES_OF_SUBSCRIPTION, DELETE_RATES_OF_SUBSCRIPTION } from '../../sql/admission.ts'
import { WAKE_ALL } from '../../sql/chains.ts'
import { DISOWN_SUBSCRIPTION } from '../../sql/ownership.ts'
import { DELETE_ALL_RETRIES } from '../../sql/retries.ts'
import { DELETE_ALL_STEPS } from '../../sql/steps.ts'
import * as sql from '../../sql/subscriptions.ts'
import type { Statements } from '../file/connection.ts'
import type { Log, TopicRow } from '../log/log.ts'
import { isIntact } from '../log/message-reader.ts'

export interface SubscriptionRow {
  readonly subscriptionId: number
  readonly topicId: number
  readonly paused: 0 | 1
  readonly maxCrashes: number
  readonly ordered: 0 | 1
  readonly maxParked: number
}

/** What there is to do for a subscription. */
export interface Work {
  readonly ordered: 0 | 1
  readonly paused: 0 | 1
  /** New messages may be granted. */
  readonly room: 0 | 1
  /** There is something to grant; always 0 where `ordered`. */
  readonly found: 0 | 1
}

export interface FreshPartition {
  readonly partition: number
  readonly cursor: number
  readonly head: number
}

/** The subscriptions and how far each has taken its topic: one cursor a partition. */
export class Subscriptions {
  readonly #statements: Statements
  readonly #log: Log

  constructor(statements: Statements, log: Log) {
    this.#statements = statements
    this.#log = log
  }

  find({ topic, subscription }: SubscriptionRef): SubscriptionRow {
    const { topicId } = this.#log.topic(topic)
    const row = this.#statements.get<SubscriptionRow>(sql.FIND_SUBSCRIPTION, topicId, subscription)
    if (!row) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
    return row
  }

  /** Whether the subscription is there, exactly as it is wanted. */
  isConfigured({ topic, subscription, maxCrashes, ordered, maxParked }: SubscriptionConfig): boolean {
    const wanted = [topic, subscription, maxCrashes, Number(ordered), maxParked] as const
    return this.#statements.get(sql.FIND_CONFIGURED_SUBSCRIPTION, ...wanted) !== undefined
  }

  ensure(config: SubscriptionConfig): void {
    const topic = this.#log.topic(config.topic)
    const stored = this.#statements.get<SubscriptionRow>(sql.FIND_SUBSCRIPTION, topic.topicId, config.subscription)
    const { maxCrashes, maxParked } = config
    const ordered = Number(config.ordered)
    if (stored) {
      this.#statements.run(sql.UPDATE_SUBSCRIPTION, maxCrashes, ordered, maxParked, stored.subscriptionId)
      if (stored.ordered === 1 && ordered === 0) this.#endOrder(stored.subscriptionId)
      return
    }
    if (topic.kind === 'queue' && this.idsOfTopic(topic.topicId).length > 0) {
      const { topic: name, subscription } = config
      throw new PosthornError('POSTHORN_QUEUE_SUBSCRIPTION', { topic: name, subscription })
    }
    const { topicId } = topic
    this.#statements.run(sql.INSERT_SUBSCRIPTION, topicId, config.subscription, maxCrashes, ordered, maxParked)
    const { subscriptionId } = this.find(config)
    // What was published while nobody listened goes to the first subscription, whichever process starts first.
    const start = config.start ?? { at: topic.hadSubscription ? 'latest' : 'earliest' }
    for (const partition of this.#log.partitionNumbers(topicId)) {
      const offset = this.locate(topic, partition, start) ?? this.#log.nextOffset(topic.topicId, partition)
      this.#statements.run(sql.INSERT_CURSOR, subscriptionId, partition, offset)
    }
    this.#statements.run(sql.MARK_HAD_SUBSCRIPTION, topic.topicId)
  }

  // Nobody waits for a key any more, and nobody owns a partition.
  #endOrder(subscriptionId: number): void {
    this.#statements.run(WAKE_ALL, subscriptionId)
    this.#statements.run(DISOWN_SUBSCRIPTION, subscriptionId)
  }

  /** The offset that a position means in a partition; undefined where it speaks of another partition. */
  locate(topic: TopicRow, partition: number, position: StartPosition): number | undefined {
    const next = this.#log.nextOffset(topic.topicId, partition)
    if ('offset' in position) {
      if (position.partition !== undefined && position.partition !== partition) return undefined
      return Math.min(next, Math.max(this.#firstKept(topic, partition, next), position.offset))
    }
    if ('timeMs' in position) return this.#locateTime(topic, partition, position.timeMs) ?? next
    return position.at === 'latest' ? next : this.#firstKept(topic, partition, next)
  }

  moveCursor(subscriptionId: number, partition: number, offset: number): void {
    this.#statements.run(sql.MOVE_CURSOR, offset, subscriptionId, partition)
  }

  freshPartitions(subscriptionId: number, topicId: number): FreshPartition[] {
    return this.#statements.all<FreshPartition>(sql.FRESH_PARTITIONS, subscriptionId, topicId)
  }

  /** What a pull would find; undefined when the subscription is gone. */
  work(subscriptionId: number, nowMs: number): Work | undefined {
    return this.#statements.get<Work>(sql.LOOK_FOR_WORK, subscriptionId, nowMs)
  }

  /** Whether new messages may be granted, or too many are set aside. */
  mayTakeNew(subscriptionId: number): boolean {
    return this.#statements.get<{ room: 0 | 1 }>(sql.MAY_TAKE_NEW, subscriptionId)?.room === 1
  }

  setPaused(subscriptionId: number, paused: boolean): void {
    this.#statements.run(sql.SET_PAUSED, Number(paused), subscriptionId)
  }

  idsOfTopic(topicId: number): number[] {
    const rows = this.#statements.all<{ subscriptionId: number }>(sql.SUBSCRIPTION_IDS_OF_TOPIC, topicId)
    return rows.map((row) => row.subscriptionId)
  }

  /** The lowest offset that the subscription may still have to read. */
  floor(subscriptionId: number, partition: number): number {
    return this.#statements.get<{ floor: number }>(sql.FLOOR, subscriptionId, partition)!.floor
  }

  delete({ subscriptionId, topicId }: Pick<SubscriptionRow, 'subscriptionId' | 'topicId'>): void {
    for (const statement of [
      sql.DELETE_CURSORS,
      DISOWN_SUBSCRIPTION,
      sql.DELETE_SUBSCRIPTION_LEASES,
      DELETE_ALL_RETRIES,
      sql.DELETE_SUBSCRIPTION_DEAD_LETTERS,
      DELETE_ALL_STEPS,
      DELETE_RATES_OF_SUBSCRIPTION,
      DELETE_PLACES_OF_SUBSCRIPTION,
      sql.DELETE_SUBSCRIPTION_SESSIONS,
      sql.DELETE_SUBSCRIPTION,
    ]) {
      this.#statements.run(statement, subscriptionId)
    }
    this.#statements.run(sql.FORGET_QUEUE_SUBSCRIPTION, topicId)
  }

  #firstKept(topic: TopicRow, partition: number, next: number): number {
    const row = this.#statements.get<{ offset: number | null }>(sql.FIRST_KEPT_OFFSET, topic.topicId, partition)
    return row?.offset ?? next
  }

  #locateTime(topic: TopicRow, partition: number, timeMs: number): number | undefined {
    const found = this.#statements.get<{ batchId: number }>(sql.FIRST_BATCH_AT_TIME, topic.topicId, partition, timeMs)
    const batch = found && this.#log.readBatch(found.batchId)
    if (!batch) return undefined
    // Of a damaged batch nothing is known but where it begins; its delivery reports the damage.
    if (!isIntact(batch)) return batch.baseOffset
    const own = JSON.parse(batch.data) as { time: string }[]
    const place = own.findIndex((event) => Date.parse(event.time) >= timeMs)
    return batch.baseOffset + Math.max(0, place)
  }
}
