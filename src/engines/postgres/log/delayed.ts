/**
 * Messages that wait for their time, and enter the log when it has come. One process at a time moves them, in the order
 * in which they are due.
 *
 * Rows that were moved stay in the index for as long as somebody holds a transaction open, so what is due is looked for
 * above a bound: a time up to which this process has found nothing more, less what clocks and slow commits may be behind.
 * Now and then, and at first, it looks from further back, for what others have stored later than that.
 *
 * What takes several rounds is gone on with where the round before has ended; when all of it was moved, there is a last
 * look from the bound, for what was stored meanwhile.
 */

import { RunPacker } from '../../record-batches.ts'
import type { Database } from '../database/database.ts'
import type { Queryable, Transaction } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { topics } from '../sql/topics.ts'
import type { WrittenBatch } from './batches.ts'
import type { PackedRun } from './drafts.ts'
import { addLanes, Heads, insertBatches, toBatches } from './storing.ts'
import type { TopicRow } from './topics.ts'

export interface Promotion {
  /** What entered the log. */
  readonly batches: readonly WrittenBatch[]
  /** There may be more that is due: call again. */
  readonly unfinished: boolean
  /** Somebody else is at it. */
  readonly busy: boolean
}

interface DelayedRow {
  readonly delayedId: number
  readonly topicId: number
  readonly partition: number
  readonly deliverAtMs: number
  readonly timeMs: number
  readonly shared: string
  readonly own: string
}

/** Where a message stands in the order in which they are due. */
type DuePlace = Pick<DelayedRow, 'deliverAtMs' | 'delayedId'>

type DueRow = DuePlace & Pick<DelayedRow, 'topicId'>

interface Round extends Pick<Promotion, 'batches' | 'busy'> {
  /** The last one, when there may be more behind it. */
  readonly movedUpTo: DuePlace | undefined
}

/** Messages may be large, and all of them are in memory at once. */
const PROMOTED_MAX = 500
const LATE_MS = 5_000
const LATEST_MS = 600_000
const FAR_LOOK_EVERY_MS = 30_000
const NOTHING_DUE: Round = { batches: [], movedUpTo: undefined, busy: false }

export class Delayed {
  readonly #database: Database
  /** Nothing was due up to then, when it was looked at. */
  #clearUpToMs = Number.MIN_SAFE_INTEGER
  #lookedFarAtMs = Number.NEGATIVE_INFINITY
  /** Of what is moved in several rounds, where the last one has ended. */
  #movedUpTo: DuePlace | undefined

  constructor(database: Database) {
    this.#database = database
  }

  /** Moves what is due, as much as goes at once. */
  async promoteDue(nowMs: number): Promise<Promotion> {
    const clearUpToMs = this.#clearUpToMs
    const isFar = nowMs >= this.#lookedFarAtMs + FAR_LOOK_EVERY_MS || nowMs < this.#clearUpToMs
    const resumed = this.#movedUpTo
    const from = resumed ?? boundAt(this.#boundMs(isFar ? LATEST_MS : LATE_MS, nowMs))
    const found = await this.#database.rows<DueRow>(sql.log.dueDelayed, ...valuesOf(from), nowMs, 1)
    const { batches, busy, movedUpTo } = found.length > 0 ? await this.#promote(from, nowMs) : NOTHING_DUE
    // What was forgotten meanwhile stays so.
    const isKnown = this.#clearUpToMs === clearUpToMs
    this.#movedUpTo = isKnown ? movedUpTo : undefined
    const isDone = isKnown && !busy && !movedUpTo && !resumed
    if (isDone) this.#clear(nowMs, isFar)
    return { batches, busy, unfinished: !busy && !isDone }
  }

  /** The server is another one, or has lost what it had: anything may be due. */
  forgetAll(): void {
    this.#clearUpToMs = Number.MIN_SAFE_INTEGER
    this.#lookedFarAtMs = Number.NEGATIVE_INFINITY
    this.#movedUpTo = undefined
  }

  /** When the next one is due; in the past, if one is due already. */
  async nextDueMs(): Promise<number | undefined> {
    const boundMs = this.#boundMs(LATE_MS, this.#clearUpToMs)
    const [next] = await this.#database.rows<{ deliverAtMs: number }>(sql.log.nextDelayed, boundMs)
    return next?.deliverAtMs
  }

  #boundMs(lateMs: number, nowMs: number): number {
    return Math.max(Number.MIN_SAFE_INTEGER, Math.min(this.#clearUpToMs, nowMs) - lateMs)
  }

  #clear(nowMs: number, isFar: boolean): void {
    this.#clearUpToMs = nowMs
    if (isFar) this.#lookedFarAtMs = nowMs
  }

  #promote(from: DuePlace, nowMs: number): Promise<Round> {
    return this.#database.transaction(async (rows) => {
      const [lock] = await rows.rows<{ locked: boolean }>(sql.log.lockDelayed)
      // Somebody else does it, and may still fail.
      if (!lock!.locked) return { ...NOTHING_DUE, busy: true }
      const due = await rows.rows<DueRow>(sql.log.dueDelayed, ...valuesOf(from), nowMs, PROMOTED_MAX)
      const movedUpTo = due.length === PROMOTED_MAX ? due.at(-1) : undefined
      return { batches: await store(rows, due), movedUpTo, busy: false }
    })
  }
}

/** Before all that is due later than that. */
function boundAt(deliverAtMs: number): DuePlace {
  return { deliverAtMs, delayedId: Number.MAX_SAFE_INTEGER }
}

function valuesOf({ deliverAtMs, delayedId }: DuePlace): [number, number] {
  return [deliverAtMs, delayedId]
}

/** Topics are locked before their messages, as everywhere. One may have been cancelled meanwhile. */
async function store(rows: Transaction, due: readonly DueRow[]): Promise<readonly WrittenBatch[]> {
  if (due.length === 0) return []
  const topicIds = [...new Set(due.map(({ topicId }) => topicId))]
  const [locked, taken] = await Promise.all([
    rows.rows<TopicRow>(topics.lock, topicIds),
    rows.rows<DelayedRow>(
      sql.log.takeDelayed,
      due.map(({ delayedId }) => delayedId),
    ),
  ])
  const known = new Map(locked.map((topic) => [topic.topicId, topic]))
  const waiting = taken.filter(({ topicId }) => known.has(topicId)).toSorted(byTime)
  const heads = await findHeads(rows, waiting, known)
  const batches = toBatches(packRows(waiting), heads)
  insertBatches(rows, batches)
  return batches
}

function byTime(one: DelayedRow, other: DelayedRow): number {
  return one.deliverAtMs - other.deliverAtMs || one.delayedId - other.delayedId
}

async function findHeads(
  rows: Queryable,
  waiting: readonly DelayedRow[],
  known: ReadonlyMap<number, TopicRow>,
): Promise<Heads> {
  const heads = new Heads()
  const places = waiting.map(({ topicId, partition }) => ({ topicId, partition }))
  const found = await rows.rows<{ topicId: number; partition: number; nextOffset: number }>(
    sql.log.heads,
    places.map(({ topicId }) => topicId),
    places.map(({ partition }) => partition),
  )
  heads.note(found)
  const missing = places.filter(({ topicId, partition }) => !heads.has(topicId, partition))
  await addLanes(
    rows,
    missing.map((place) => ({ ...place, partitions: known.get(place.topicId)!.partitions })),
  )
  return heads
}

function packRows(waiting: readonly DelayedRow[]): PackedRun[] {
  const alike = Map.groupBy(waiting, ({ topicId, shared }) => `${topicId} ${shared}`)
  return [...alike.values()].flatMap((rows) => {
    const packer = new RunPacker()
    for (const { partition, own, timeMs } of rows) packer.add(partition, own, timeMs)
    const { topicId, shared } = rows[0]!
    return packer.finish().map((run) => ({ topicId, shared, ...run }))
  })
}
