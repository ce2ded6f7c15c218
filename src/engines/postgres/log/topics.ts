import type { SubscriptionConfig, SubscriptionRef, TopicConfig } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import type { SubscriptionKey, Turns } from '../delivery/turns.ts'
import { outbox } from '../sql/outbox.ts'
import * as sql from '../sql/topics.ts'
import type { BatchReader } from './batches.ts'
import { ensureSubscription } from './subscriptions.ts'

export interface TopicRow {
  readonly topicId: number
  readonly topic: string
  readonly kind: 'topic' | 'queue'
  readonly partitions: number
  readonly deduplicationWindowMs: number
  readonly maxAgeMs: number
  readonly maxBytes: number | null
  readonly dropUnread: boolean
  readonly maxBacklog: number | null
  readonly hadSubscription: boolean
  readonly generation: number
  readonly hasCancelled: boolean
}

interface FoundSubscription {
  readonly topicId: number
  /** Null: the topic has none of that name. */
  readonly subscriptionId: number | null
}

export interface TopicsParts {
  readonly database: Database
  readonly turns: Turns
  readonly batches: BatchReader
}

/**
 * The topics and their subscriptions. Rows are remembered by name: what can change of one is to be believed only of a row
 * that is locked, and that it is still there as well.
 */
export class Topics {
  readonly #parts: TopicsParts
  readonly #known = new Map<string, TopicRow>()

  constructor(parts: TopicsParts) {
    this.#parts = parts
  }

  /** Makes the topic exist with this configuration. Rejects with POSTHORN_TOPIC_CONFLICT. */
  async ensure(config: TopicConfig): Promise<void> {
    const { database } = this.#parts
    for (let stored = await this.#find(config.topic); ; stored = await this.#find(config.topic)) {
      if (stored) {
        refuseConflict(stored, config)
        if (isConfigured(stored, config)) return
        await database.run(sql.topics.configure, stored.topicId, ...changeableOf(config))
        this.#known.delete(config.topic)
        return
      }
      if (await this.#insert(config)) return
    }
  }

  /** As it is now. Rejects with POSTHORN_TOPIC_NOT_FOUND. */
  async find(topic: string): Promise<TopicRow> {
    const row = await this.#find(topic)
    if (!row) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic })
    return row
  }

  /** Those that exist, of these names; some may have been deleted, or changed, since they were looked up. */
  async recall(rows: Queryable, names: Iterable<string>): Promise<ReadonlyMap<string, TopicRow>> {
    const wanted = [...new Set(names)]
    const unknown = wanted.filter((name) => !this.#known.has(name))
    if (unknown.length > 0) this.remember(await rows.rows<TopicRow>(sql.topics.find, unknown))
    return new Map(wanted.flatMap((name) => (this.#known.has(name) ? [[name, this.#known.get(name)!]] : [])))
  }

  remember(rows: readonly TopicRow[]): void {
    for (const row of rows) this.#known.set(row.topic, row)
  }

  forget(name: string): void {
    this.#known.delete(name)
  }

  /** Makes the subscription exist, or gives it this configuration. Rejects with POSTHORN_QUEUE_SUBSCRIPTION. */
  ensureSubscription(config: SubscriptionConfig): Promise<void> {
    return ensureSubscription(this.#parts, this, config)
  }

  /** Rejects with POSTHORN_TOPIC_NOT_FOUND or POSTHORN_SUBSCRIPTION_NOT_FOUND. */
  async findSubscription(ref: SubscriptionRef): Promise<SubscriptionKey & { readonly topicId: number }> {
    const { topic, subscription } = ref
    const [found] = await this.#parts.database.rows<FoundSubscription>(sql.topics.findSubscription, topic, subscription)
    if (!found) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic })
    const { topicId, subscriptionId } = found
    if (subscriptionId === null) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
    return { topic, subscription, topicId, subscriptionId }
  }

  async #find(topic: string): Promise<TopicRow | undefined> {
    const [row] = await this.#parts.database.rows<TopicRow>(sql.topics.find, [topic])
    if (row) this.remember([row])
    else this.forget(topic)
    return row
  }

  /** Says whether it did: another process may have been first. */
  #insert(config: TopicConfig): Promise<boolean> {
    const { topic, kind, partitions } = config
    return this.#parts.database.transaction(async (rows) => {
      const values = [topic, kind, partitions, ...changeableOf(config)]
      const [inserted] = await rows.rows<{ topicId: number }>(sql.topics.insert, ...values)
      if (!inserted) return false
      const added = rows.run(sql.topics.addLanes, [inserted.topicId], [0], [partitions])
      // What waited for it in the outbox comes before all that is published from now on.
      await Promise.all([added, rows.run(outbox.refloatInto, topic)])
      return true
    })
  }
}

function changeableOf({ deduplicationWindowMs, retention, maxBacklog }: TopicConfig): (number | boolean | null)[] {
  const { maxAgeMs, maxBytes, dropUnread } = retention
  return [deduplicationWindowMs, maxAgeMs, maxBytes ?? null, dropUnread, maxBacklog ?? null]
}

function isConfigured(stored: TopicRow, wanted: TopicConfig): boolean {
  const { deduplicationWindowMs, maxAgeMs, maxBytes, dropUnread, maxBacklog } = stored
  const values = [deduplicationWindowMs, maxAgeMs, maxBytes, dropUnread, maxBacklog]
  return changeableOf(wanted).every((value, place) => value === values[place])
}

function refuseConflict(stored: TopicRow, wanted: TopicConfig): void {
  for (const setting of ['kind', 'partitions'] as const) {
    if (stored[setting] === wanted[setting]) continue
    const details = { topic: wanted.topic, setting, stored: stored[setting], wanted: wanted[setting] }
    throw new PosthornError('POSTHORN_TOPIC_CONFLICT', details)
  }
}
