/**
 * Everything of a moved store but its log, written in one transaction: topics and partitions, then what belongs to
 * topics, then subscriptions and what belongs to them. Topics have been given their ids here already, under which their
 * batches are stored; subscriptions get theirs now. What a subscription has under way is one text, which says among
 * other things how many messages it has set aside, and so comes last.
 */
import { Buffer } from 'node:buffer'
import { batchChecksum } from '../../checksum.ts'
import type {
  MoveContents,
  MoveCounts,
  MovedBatch,
  MovedDeadLetter,
  MovedSetAside,
  MovedSubscription,
  MovedTopic,
} from '../../moving.ts'
import type { Queryable, Statement, Transaction } from '../database/statement.ts'
import { toStoredText } from '../database/text.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import { counterOf } from '../limits/admissions.ts'
import { CounterStore } from '../limits/counter-store.ts'
import { idHash } from '../log/id-hash.ts'
import { moving } from '../sql/moving.ts'
import { columnsOf, portions } from './portions.ts'

/** From ids of the source to those here. */
export type Ids = ReadonlyMap<number, number>

/** What a subscription has set aside. */
interface Waiting {
  rows: number
  dueAtMs: number | undefined
}

interface StoredSubscription {
  readonly subscriptionId: number
  readonly topicId: number
  readonly subscription: string
}

export class Filling {
  readonly #rows: Transaction
  readonly #contents: MoveContents
  readonly #topicIds: Ids

  constructor(rows: Transaction, contents: MoveContents, topicIds: Ids) {
    this.#rows = rows
    this.#contents = contents
    this.#topicIds = topicIds
  }

  async fill(nowMs: number): Promise<void> {
    await this.#add(moving.addTopics, this.#contents.topics(), (topic) => topicValues(this.#topicId(topic), topic))
    await this.#addPartitions()
    await this.#addMessages()
    const subscriptions = this.#contents.subscriptions()
    const ids = await this.#addSubscriptions(subscriptions)
    await this.#addDeadLetters(ids)
    await this.#addSteps(ids)
    await this.#addStates(subscriptions, ids, await this.#addSetAside(ids))
    await this.#addBuckets(ids, nowMs)
  }

  async #addPartitions(): Promise<void> {
    const partitions = this.#contents.partitions()
    await this.#add(moving.addPartitions, partitions, (row) => [this.#topicId(row), row.partition])
    const floors = partitions.filter(({ firstOffset }) => firstOffset > 0)
    await this.#add(moving.addFloors, floors, (row) => [this.#topicId(row), row.partition, row.firstOffset])
  }

  async #addMessages(): Promise<void> {
    const contents = this.#contents
    await this.#add(moving.addDelayed, contents.delayed(), (row) => {
      const { partition, id, deliverAtMs, timeMs, shared, own } = row
      return [this.#topicId(row), partition, idHash(id), deliverAtMs, timeMs, shared, own]
    })
    await this.#add(moving.addCancelled, contents.cancelled(), (row) => [this.#topicId(row), row.partition, row.offset])
    await this.#add(moving.addIds, contents.ids(), (row) => [this.#topicId(row), idHash(row.id), row.expiresAtMs])
  }

  async #addSubscriptions(subscriptions: readonly MovedSubscription[]): Promise<Ids> {
    const known = new Map(subscriptions.map((row) => [`${this.#topicId(row)} ${row.subscription}`, row.subscriptionId]))
    const rows = subscriptions.map((row) => {
      const { subscription, ordered, maxCrashes, maxParked, paused } = row
      return [this.#topicId(row), subscription, ordered, maxCrashes, maxParked, paused]
    })
    if (rows.length === 0) return new Map()
    const added = await this.#rows.rows<StoredSubscription>(moving.addSubscriptions, ...columnsOf(rows))
    return new Map(
      added.map(({ subscriptionId, topicId, subscription }) => [
        known.get(`${topicId} ${subscription}`)!,
        subscriptionId,
      ]),
    )
  }

  async #addDeadLetters(ids: Ids): Promise<void> {
    const letters = this.#contents.deadLetters()
    await this.#add(moving.addDeadLetters, letters, (row) => deadLetterValues(idIn(ids, row), row))
    await this.#rows.rows(moving.skipDeadLetterIds)
  }

  async #addSteps(ids: Ids): Promise<void> {
    await this.#add(moving.addSteps, this.#contents.steps(), (row) => {
      return [idIn(ids, row), row.partition, row.offset, toStoredText(row.name), row.result]
    })
  }

  async #addSetAside(ids: Ids): Promise<ReadonlyMap<number, Waiting>> {
    const all = new Map<number, Waiting>()
    await this.#add(moving.addSetAside, this.#contents.setAside(), (row) => {
      const waiting = all.get(row.subscriptionId) ?? { rows: 0, dueAtMs: undefined }
      all.set(row.subscriptionId, waiting)
      waiting.rows++
      if (row.dueAtMs !== null) waiting.dueAtMs = Math.min(waiting.dueAtMs ?? row.dueAtMs, row.dueAtMs)
      return setAsideValues(idIn(ids, row), row)
    })
    return all
  }

  async #addStates(
    subscriptions: readonly MovedSubscription[],
    ids: Ids,
    waiting: ReadonlyMap<number, Waiting>,
  ): Promise<void> {
    await this.#add(moving.addStates, subscriptions, (row) => {
      const state = DeliveryState.startingAt(new Map(row.positions))
      state.returned = [...row.returned]
      const { rows, dueAtMs } = waiting.get(row.subscriptionId) ?? { rows: 0 }
      state.setAside = rows
      state.dueAtMs = dueAtMs
      return [idIn(ids, row), state.toText()]
    })
  }

  async #addBuckets(ids: Ids, nowMs: number): Promise<void> {
    const buckets = Map.groupBy(this.#contents.buckets(), (bucket) => idIn(ids, bucket))
    for (const [subscriptionId, ofOne] of buckets) {
      const store = await CounterStore.open(this.#rows, subscriptionId, [])
      for (const { limit, bucket, fullAtMs } of ofOne) store.setFullAtMs(counterOf('rate', limit, bucket), fullAtMs)
      store.save(nowMs)
    }
  }

  async #add<Row extends object>(
    statement: Statement,
    rows: Iterable<Row>,
    valuesOf: (row: Row) => readonly unknown[],
  ) {
    for (const portion of portions(rows)) {
      await this.#rows.run(statement, ...columnsOf(portion.map(valuesOf)))
    }
  }

  #topicId({ topicId }: { readonly topicId: number }): number {
    return this.#topicIds.get(topicId)!
  }
}

/** How much there is of everything. */
export async function countAll(rows: Queryable): Promise<MoveCounts> {
  const [counted] = await rows.rows<Omit<MoveCounts, 'returned'>>(moving.counts)
  const states = await rows.rows<{ state: string }>(moving.states)
  const ranges = states.flatMap(({ state }) => DeliveryState.parse(state).returned)
  return { ...counted!, returned: ranges.reduce((total, { from, to }) => total + to - from, 0) }
}

/** A record batch as it is stored under another id of its topic, its numbers in the order of the statement. */
export function storedBatch(topicId: number, batch: MovedBatch) {
  const { partition, baseOffset, count, firstTimeMs, lastTimeMs, isIntact } = batch
  const [shared, data] = isIntact ? [batch.shared, batch.data] : [storable(batch.shared), storable(batch.data)]
  const right = batchChecksum({ topicId, partition, baseOffset, count, shared, data })
  // What was damaged must not look as if it were whole.
  const checksum = isIntact ? right : (right ^ 1) >>> 0
  const bytes = Buffer.byteLength(data)
  return { numbers: [topicId, partition, baseOffset, count, firstTimeMs, lastTimeMs, bytes, checksum], shared, data }
}

// Damage can make anything of a text.
function storable(text: unknown): string {
  return typeof text === 'string' ? text.replaceAll('\0', '') : ''
}

function topicValues(topicId: number, topic: MovedTopic): readonly unknown[] {
  const { kind, partitions, deduplicationWindowMs, maxAgeMs, maxBytes, dropUnread, maxBacklog } = topic
  const limits = [deduplicationWindowMs, maxAgeMs, maxBytes, dropUnread, maxBacklog]
  return [topicId, topic.topic, kind, partitions, ...limits, topic.hadSubscription, topic.hasCancelled]
}

function setAsideValues(subscriptionId: number, row: MovedSetAside): readonly unknown[] {
  const { partition, offset, wait, dueAtMs, status, attempt, crashes, failures, event } = row
  const id = row.id === null ? null : idHash(row.id)
  return [subscriptionId, partition, offset, keyOf(row), wait, dueAtMs, status, attempt, crashes, failures, event, id]
}

function deadLetterValues(subscriptionId: number, row: MovedDeadLetter): readonly unknown[] {
  const { deadLetterId, partition, offset, blocks, reason, deadAtMs, attempts, crashes, failures, event } = row
  const id = event === null ? null : idHash((JSON.parse(event) as { id: string }).id)
  const place = [deadLetterId, subscriptionId, partition, offset]
  return [...place, keyOf(row), blocks, reason, deadAtMs, attempts, crashes, failures, event, id]
}

function idIn(ids: Ids, { subscriptionId }: { readonly subscriptionId: number }): number {
  return ids.get(subscriptionId)!
}

function keyOf({ key }: { readonly key: string | null }): string | null {
  return key === null ? null : toStoredText(key)
}
