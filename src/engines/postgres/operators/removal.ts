/** What operators delete: the messages of a topic, a subscription, a topic with everything. */
import type { SubscriptionRef } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Queryable, Statement } from '../database/statement.ts'
import type { Turn } from '../delivery/turns.ts'
import { endsOf, type PartitionEnds } from '../log/positions.ts'
import type { Topics } from '../log/topics.ts'
import { discard } from '../outbox/outbox.ts'
import { operators as sql } from '../sql/operators.ts'
import { retention } from '../sql/retention.ts'
import type { TopicChange, TopicChanges } from './topic-changes.ts'

/** What was touched, so that those who wait for it can be told. */
export interface Touched {
  readonly topicId: number
  readonly subscriptionIds: readonly number[]
}

export interface Purged extends Touched {
  readonly messages: number
}

interface DeletedSome {
  readonly deleted: number
  readonly lastHash: string | null
}

/** Batches, ids or delayed messages that are deleted in one transaction. */
const DELETED_AT_ONCE = 5_000
const LEAST_HASH = '00000000-0000-0000-0000-000000000000'

export class Removal {
  readonly #database: Database
  readonly #topics: Topics
  readonly #changes: TopicChanges

  constructor(database: Database, topics: Topics, changes: TopicChanges) {
    this.#database = database
    this.#topics = topics
    this.#changes = changes
  }

  /**
   * Deletes all messages of a topic. What is delayed, and ids, go first, some at a time; then all that is in the log is
   * out of reach with one short transaction, and its batches are deleted, some at a time. Should that be interrupted,
   * the next purge deletes what is left.
   *
   * What waits in the outbox goes first, in a transaction of its own: a relay that has it in hand already must not wait
   * for the topic while the topic waits for the relay. What that one moves meanwhile is in the log before it is emptied.
   */
  async purge(topic: string): Promise<Purged> {
    const { topicId } = await this.#topics.find(topic)
    const waiting = await discard(this.#database, topic)
    const delayed = await this.#deleteSome(sql.deleteSomeDelayed, topicId)
    await this.#deleteSome(sql.deleteSomeIds, topicId)
    const purged = await this.#changes.run(topic, purgeIn)
    await this.#deleteBatches(purged.topicId)
    return { ...purged, messages: purged.messages + waiting + delayed }
  }

  async deleteSubscription({ topic, subscription }: SubscriptionRef): Promise<Touched> {
    return this.#changes.run(topic, async (change) => {
      const turn = change.turns.find((each) => each.subscription.subscription === subscription)
      if (!turn) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
      const { topicId } = change.topic
      const subscriptionIds = [turn.subscription.subscriptionId]
      await Promise.all([
        deleteSubscriptions(change.rows, subscriptionIds),
        change.rows.run(sql.forgetQueueSubscription, topicId),
      ])
      return { topicId, subscriptionIds }
    })
  }

  /** A purge goes first: if the rest is interrupted, the topic is still there to be deleted again. */
  async deleteTopic(topic: string): Promise<Touched> {
    await this.purge(topic)
    return this.#changes.run(topic, deleteTopicIn)
  }

  /** Deletes what there may be millions of, so that little is left for the transaction that locks the topic. */
  async #deleteSome(statement: Statement, topicId: number): Promise<number> {
    let total = 0
    for (let bound = LEAST_HASH; ; ) {
      const values = [topicId, bound, DELETED_AT_ONCE]
      const [{ deleted, lastHash }] = (await this.#database.rows<DeletedSome>(statement, ...values)) as [DeletedSome]
      total += deleted
      if (deleted < DELETED_AT_ONCE || lastHash === null) return total
      bound = lastHash
    }
  }

  async #deleteBatches(topicId: number): Promise<void> {
    const ends = await endsOf(this.#database, [topicId])
    for (const { partition, firstOffset } of ends) {
      let from = 0
      for (let left = true; left; ) {
        const values = [topicId, partition, from, firstOffset, DELETED_AT_ONCE]
        const [deleted] = await this.#database.rows<{ batches: number; lastOffset: number | null }>(
          sql.deleteBatches,
          ...values,
        )
        from = deleted?.lastOffset ?? firstOffset
        left = deleted?.batches === DELETED_AT_ONCE
      }
    }
  }
}

async function purgeIn({ rows, topic: { topicId }, turns }: TopicChange): Promise<Purged> {
  const subscriptionIds = idsOf(turns)
  const [ends, delayed] = await Promise.all([
    closeLog(rows, topicId),
    rows.run(sql.deleteDelayed, topicId),
    rows.run(sql.noteGeneration, topicId),
    rows.run(sql.deleteIds, topicId),
    rows.run(sql.deleteCancelled, topicId),
    rows.run(sql.deleteSetAside, subscriptionIds),
    rows.run(sql.deleteStepsButOfDeadLetters, subscriptionIds),
  ])
  for (const turn of turns) passOverAll(turn, ends)
  const stored = ends.reduce((total, { firstOffset, nextOffset }) => total + nextOffset - firstOffset, 0)
  return { topicId, subscriptionIds, messages: stored + delayed }
}

/** Moves the beginnings of all partitions to their ends. Returns what they were. */
async function closeLog(rows: Queryable, topicId: number): Promise<PartitionEnds[]> {
  const [, ends] = await Promise.all([
    // Retention moves them, too.
    rows.run(retention.lock, topicId),
    endsOf(rows, [topicId]),
    rows.run(sql.closeLog, topicId),
    rows.run(sql.dropFloors, topicId),
  ])
  return ends
}

/** Nothing of what is leased or waits is delivered again. */
function passOverAll({ state }: Turn, ends: readonly PartitionEnds[]): void {
  state.leases.clear()
  state.returned = []
  state.setAside = 0
  state.dueAtMs = undefined
  for (const { partition, nextOffset } of ends) state.cursors.set(partition, nextOffset)
}

async function deleteTopicIn({ rows, topic: { topicId }, turns }: TopicChange): Promise<Touched> {
  const subscriptionIds = idsOf(turns)
  await Promise.all([
    rows.run(retention.lock, topicId),
    deleteSubscriptions(rows, subscriptionIds),
    rows.run(sql.deleteDelayed, topicId),
    rows.run(sql.deleteIds, topicId),
    rows.run(sql.deleteCancelled, topicId),
    rows.run(sql.deleteAllBatches, topicId),
    rows.run(sql.deleteFloors, topicId),
    rows.run(sql.deletePartitions, topicId),
    rows.run(sql.deleteTopic, topicId),
  ])
  return { topicId, subscriptionIds }
}

async function deleteSubscriptions(rows: Queryable, ids: readonly number[]): Promise<void> {
  const everything = [
    sql.deleteStates,
    sql.deleteSetAside,
    sql.deleteDeadLetters,
    sql.deleteSteps,
    sql.deleteCounters,
    sql.deleteBreakers,
    sql.deleteSubscriptions,
  ]
  await Promise.all(everything.map((statement) => rows.run(statement, ids)))
}

function idsOf(turns: readonly Turn[]): number[] {
  return turns.map(({ subscription }) => subscription.subscriptionId)
}
