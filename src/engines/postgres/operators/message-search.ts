/**
 * Finds messages by their id, for which the log has no index: it would cost every message something, and few are ever
 * looked for. Ids of our own making tell when their batch was published, and batches of a partition are in the order of
 * their times but for delayed ones. Whatever is not found so is looked for in all that some subscription may still have
 * to read, a stretch at a time, and among what was redriven. That an id stands there more than once is possible, if its
 * deduplication window was over: the youngest message is meant.
 *
 * Holds no locks. What is found may be out of date by then, so whoever acts on it looks at its offset again.
 */
import type { StoredEvent } from '../../../engine.ts'
import type { Database } from '../database/database.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import type { BatchReader } from '../log/batches.ts'
import { idHash } from '../log/id-hash.ts'
import { cancellation as sql } from '../sql/cancellation.ts'
import { inspection } from '../sql/inspection.ts'
import type { PartitionRow } from './inspection.ts'

export interface MessagePlace {
  readonly partition: number
  readonly offset: number
}

interface DatedPlace extends MessagePlace {
  readonly timeMs: number
}

/** A stretch `[from, to)` of a partition. */
interface Span {
  readonly partition: number
  readonly from: number
  readonly to: number
}

interface FoundBatch {
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
}

interface Stretch {
  readonly nextOffset: number | null
  readonly found: readonly (readonly [baseOffset: number, count: number])[]
}

/** What is looked through in one statement: tens of milliseconds. */
const LOOKED_THROUGH_BYTES = 8 * 2 ** 20

const UUID_OF_VERSION_7 = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

export class MessageSearch {
  readonly #database: Database
  readonly #batches: BatchReader

  constructor(database: Database, batches: BatchReader) {
    this.#database = database
    this.#batches = batches
  }

  async find(topicId: number, id: string): Promise<MessagePlace | undefined> {
    const [redriven, spans] = await Promise.all([this.#redriven(topicId, id), this.#unread(topicId)])
    const timeMs = timeOf(id)
    // Of those with an id of our own making there is only one.
    const found = timeMs === undefined ? undefined : (redriven ?? (await this.#atTime(topicId, id, spans, timeMs)))
    if (found) return found
    let youngest = redriven
    for (const span of spans) youngest = youngerOf(youngest, await this.#lookThrough(topicId, id, span))
    return youngest
  }

  async #redriven(topicId: number, id: string): Promise<DatedPlace | undefined> {
    const rows = await this.#database.rows<MessagePlace & { event: string }>(sql.redriven, topicId, idHash(id))
    const found = rows.map(({ event, partition, offset }) => {
      return { partition, offset, timeMs: Date.parse((JSON.parse(event) as StoredEvent).time) }
    })
    return found.reduce<DatedPlace | undefined>(youngerOf, undefined)
  }

  /** What some subscription may still have to read: of a topic without any, everything. */
  async #unread(topicId: number): Promise<Span[]> {
    const [partitions, subscriptions, firstRows] = await Promise.all([
      this.#database.rows<PartitionRow>(inspection.partitions, topicId),
      this.#database.rows<{ state: string }>(inspection.states, topicId),
      this.#database.rows<MessagePlace>(sql.firstRows, topicId),
    ])
    const states = subscriptions.map(({ state }) => DeliveryState.parse(state))
    const rowOf = new Map(firstRows.map(({ partition, offset }) => [partition, offset]))
    return partitions.map(({ partition, firstOffset, nextOffset }) => {
      const floors = states.map((state) => state.floor(partition, state.cursors.get(partition) ?? 0))
      const floor = states.length === 0 ? 0 : Math.min(...floors, rowOf.get(partition) ?? nextOffset)
      return { partition, from: Math.max(floor, firstOffset), to: nextOffset }
    })
  }

  async #atTime(topicId: number, id: string, spans: readonly Span[], timeMs: number): Promise<DatedPlace | undefined> {
    const firsts = await this.#firstReaching(topicId, spans, timeMs)
    const lasts = await this.#firstReaching(topicId, firsts, timeMs + 1)
    const candidates = await this.#database.rows<FoundBatch>(
      sql.batchesAtTime,
      topicId,
      firsts.map(({ partition }) => partition),
      firsts.map(({ from }) => from),
      lasts.map(({ from }) => from),
      timeMs,
      JSON.stringify(id),
    )
    return this.#within(topicId, id, candidates)
  }

  /** The spans without the batches at their beginnings whose messages are all older, by halving. */
  async #firstReaching(topicId: number, spans: readonly Span[], timeMs: number): Promise<Span[]> {
    const halves = spans.map(({ partition, from, to }) => ({ partition, low: from, high: to, to }))
    const isOpen = ({ low, high }: (typeof halves)[number]) => low < high
    for (let open = halves.filter(isOpen); open.length > 0; open = open.filter(isOpen)) {
      const middles = open.map(({ low, high }) => Math.floor((low + high) / 2))
      const found = await this.#database.rows<FoundBatch & { lastTimeMs: number }>(
        sql.batchesBefore,
        topicId,
        open.map(({ partition }) => partition),
        middles,
      )
      const batches = new Map(found.map((batch) => [batch.partition, batch]))
      for (const [number, half] of open.entries()) {
        const batch = batches.get(half.partition)
        if (batch && batch.lastTimeMs >= timeMs) half.high = Math.min(half.high, batch.baseOffset)
        else half.low = Math.max(middles[number]! + 1, batch ? batch.baseOffset + batch.count : 0)
      }
    }
    return halves.map(({ partition, high, to }) => ({ partition, from: high, to }))
  }

  async #lookThrough(topicId: number, id: string, { partition, from, to }: Span): Promise<DatedPlace | undefined> {
    const text = JSON.stringify(id)
    let youngest: DatedPlace | undefined
    for (let offset = from; offset < to; ) {
      const values = [topicId, partition, offset, text, LOOKED_THROUGH_BYTES]
      const [stretch] = await this.#database.rows<Stretch>(sql.lookThrough, ...values)
      const candidates = stretch!.found.map(([baseOffset, count]) => ({ partition, baseOffset, count }))
      youngest = youngerOf(youngest, await this.#within(topicId, id, candidates))
      offset = stretch!.nextOffset ?? to
    }
    return youngest
  }

  /** The youngest message with the id. The same text may stand in a message's data. */
  async #within(topicId: number, id: string, candidates: readonly FoundBatch[]): Promise<DatedPlace | undefined> {
    let youngest: DatedPlace | undefined
    for (const { partition, baseOffset, count } of candidates) {
      const range = { topicId, partition, from: baseOffset, to: baseOffset + count }
      const { messages } = await this.#batches.read(this.#database, [range])
      for (const { offset, event } of messages[0] ?? []) {
        if (event.id === id) youngest = youngerOf(youngest, { partition, offset, timeMs: Date.parse(event.time) })
      }
    }
    return youngest
  }
}

function youngerOf(one: DatedPlace | undefined, other: DatedPlace | undefined): DatedPlace | undefined {
  return one && (!other || one.timeMs > other.timeMs) ? one : other
}

function timeOf(id: string): number | undefined {
  const parts = UUID_OF_VERSION_7.exec(id)
  return parts ? Number.parseInt(parts[1]! + parts[2]!, 16) : undefined
}
