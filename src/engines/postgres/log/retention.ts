/**
 * Deletes what nobody needs any more: whole batches, from the oldest on.
 *
 * A topic's batches are deleted by one process at a time, under a lock of their own, and together with that the floor of
 * their partition rises: nobody looks below it again, where what was deleted may stand in the index for a long time.
 * Positions are read first, and then which messages were set aside, so that one that goes from the one to the
 * other meanwhile is seen.
 */
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import * as logSql from '../sql/log.ts'
import { retention as sql } from '../sql/retention.ts'
import { endsOf, type PartitionEnds } from './positions.ts'

interface RetainedTopic {
  readonly kind: 'topic' | 'queue'
  readonly maxAgeMs: number
  readonly maxBytes: number | null
  readonly dropUnread: boolean
  readonly hadSubscription: boolean
}

interface OldBatch {
  readonly partition: number
  readonly end: number
  readonly lastTimeMs: number
  readonly bytes: number
}

/** All that decides what is deleted of a topic. */
interface Holdings {
  readonly topic: RetainedTopic
  readonly bytes: number
  readonly oldest: readonly OldBatch[]
  /** By partition, what every subscription is done with. */
  readonly settled: ReadonlyMap<number, number>
}

interface Place {
  readonly partition: number
  readonly offset: number
}

/** Of each partition, at a time. */
const BATCHES_AT_ONCE = 512
const IDS_AT_ONCE = 5_000
/** How far clocks may differ, and ids be stored late. */
const LATE_MS = 60_000

/**
 * Deletes the batches of a topic that end at or before these offsets, and returns how many messages. Within a
 * transaction that has nothing more to wait for.
 */
export async function cutTo(rows: Queryable, topicId: number, offsets: ReadonlyMap<number, number>): Promise<number> {
  const [, [cut]] = await Promise.all([
    rows.rows(sql.lock, topicId),
    rows.rows<{ deleted: number }>(sql.cut, topicId, [...offsets.keys()], [...offsets.values()]),
  ])
  return cut!.deleted
}

export class Retention {
  readonly #database: Database
  /** No id is kept whose time was over then. */
  #idsUpToMs = Number.MIN_SAFE_INTEGER

  constructor(database: Database) {
    this.#database = database
  }

  /** Deletes what may be deleted of all topics. Returns how many messages. */
  async applyRetention(nowMs: number): Promise<number> {
    const candidates = await this.#database.rows<{ topicId: number }>(sql.candidates, nowMs)
    let deleted = 0
    for (const { topicId } of candidates) deleted += await this.applyTo(topicId, nowMs)
    return deleted
  }

  /** Of one topic: as soon as a queue's messages are settled, they can go. */
  async applyTo(topicId: number, nowMs: number): Promise<number> {
    let total = 0
    for (;;) {
      const { deleted, unfinished } = await this.#database.transaction((rows) => applyOnce(rows, topicId, nowMs))
      total += deleted
      if (deleted === 0 || !unfinished) return total
    }
  }

  /** Forgets publishers' ids whose time is over. */
  async forgetIds(nowMs: number): Promise<void> {
    for (let boundMs = this.#idsUpToMs; ; ) {
      const gone = await this.#database.rows<{ expiresAtMs: number }>(sql.forgetIds, boundMs, nowMs, IDS_AT_ONCE)
      if (gone.length < IDS_AT_ONCE) break
      boundMs = gone.reduce((latest, { expiresAtMs }) => Math.max(latest, expiresAtMs), boundMs) - 1
    }
    this.#idsUpToMs = nowMs - LATE_MS
  }
}

interface Round {
  readonly deleted: number
  /** There were more batches than are looked at once. */
  readonly unfinished: boolean
}

async function applyOnce(rows: Queryable, topicId: number, nowMs: number): Promise<Round> {
  const holdings = await look(rows, topicId)
  if (!holdings) return { deleted: 0, unfinished: false }
  const cuts = cutsOf(holdings, nowMs)
  const deleted = cuts.size === 0 ? 0 : await cutTo(rows, topicId, cuts)
  return { deleted, unfinished: holdings.oldest.length >= BATCHES_AT_ONCE }
}

async function look(rows: Queryable, topicId: number): Promise<Holdings | undefined> {
  const [, [topic], states, setAside, cancelled, ends, [stored], oldest] = await Promise.all([
    rows.rows(sql.lock, topicId),
    rows.rows<RetainedTopic>(sql.topic, topicId),
    rows.rows<{ subscriptionId: number; state: string }>(sql.states, topicId),
    rows.rows<Place & { subscriptionId: number }>(sql.setAside, topicId),
    rows.rows<Place>(logSql.log.cancelled, [topicId]),
    endsOf(rows, [topicId]),
    rows.rows<{ bytes: number }>(sql.bytes, topicId),
    rows.rows<OldBatch>(sql.oldest, topicId, BATCHES_AT_ONCE),
  ])
  if (!topic) return undefined
  const floors = states.map(({ subscriptionId, state }) => {
    const kept = setAside.filter((place) => place.subscriptionId === subscriptionId)
    return floorsOf(DeliveryState.parse(state), ends, cancelled, kept)
  })
  return { topic, bytes: stored!.bytes, oldest, settled: settledUpTo(topic, ends, floors) }
}

/** By partition, where what the subscription may still have to read begins. */
function floorsOf(
  state: DeliveryState,
  ends: readonly PartitionEnds[],
  cancelled: readonly Place[],
  setAside: readonly Place[],
): Map<number, number> {
  return new Map(
    ends.map(({ partition, firstOffset }) => {
      const gone = new Set(cancelled.filter((place) => place.partition === partition).map(({ offset }) => offset))
      let position = Math.max(state.cursors.get(partition) ?? 0, firstOffset)
      while (gone.has(position)) position++
      const waiting = setAside.find((place) => place.partition === partition)?.offset ?? position
      return [partition, Math.min(state.floor(partition, position), waiting)]
    }),
  )
}

/** A topic that has never had a subscription keeps all for the first. */
function settledUpTo(
  { hadSubscription }: RetainedTopic,
  ends: readonly PartitionEnds[],
  floors: readonly ReadonlyMap<number, number>[],
): Map<number, number> {
  return new Map(
    ends.map(({ partition, nextOffset }) => {
      const settled = floors.map((floor) => floor.get(partition)!)
      return [partition, hadSubscription ? Math.min(nextOffset, ...settled) : 0]
    }),
  )
}

/** Up to where batches go, by partition; where none does, there is no entry. */
function cutsOf({ topic, bytes, oldest, settled }: Holdings, nowMs: number): Map<number, number> {
  const cuts = new Map<number, number>()
  const kept = new Set<number>()
  let excess = topic.maxBytes === null ? 0 : bytes - topic.maxBytes
  for (const batch of oldest) {
    const { partition, end } = batch
    if (kept.has(partition)) continue
    const isSettled = end <= settled.get(partition)!
    const isBeyondLimits = batch.lastTimeMs < nowMs - topic.maxAgeMs || excess > 0
    if ((topic.kind === 'queue' && isSettled) || (isBeyondLimits && (isSettled || topic.dropUnread))) {
      cuts.set(partition, end)
      excess -= batch.bytes
    } else kept.add(partition)
  }
  return cuts
}
