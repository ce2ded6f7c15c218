import type { AppendReceipt, TopicConfig } from '../../../../engine.ts'
import { PosthornError } from '../../../../errors.ts'
import { batchChecksum } from '../../../checksum.ts'
import { RUN_CHARACTERS_MAX, RUN_MESSAGES_MAX } from '../../../record-batches.ts'
import type { WireGroup, WireRun, WireSingle } from '../../protocol.ts'
import * as sql from '../../sql/log.ts'
import type { Statements } from '../file/connection.ts'

export interface TopicRow {
  readonly topicId: number
  readonly name: string
  readonly kind: 'topic' | 'queue'
  readonly partitions: number
  readonly deduplicationWindowMs: number
  readonly maxBacklog: number | null
  readonly hadSubscription: 0 | 1
}

export interface BatchPlace {
  readonly batchId: number
  readonly baseOffset: number
  readonly count: number
  readonly bytes: number
}

export interface BatchRow {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly crc32: number
  readonly shared: string
  readonly data: string
}

interface DelayedRow {
  readonly delayedId: number
  readonly topicId: number
  readonly partition: number
  readonly id: string
  readonly timeMs: number
  readonly shared: string
  readonly own: string
}

/** Singles that enter a partition at `base`, with their places in the group. */
interface FreshSingles {
  readonly base: number
  readonly list: (WireSingle & { index: number })[]
}

/** Messages may be large, and all of them are in memory at once. */
const PROMOTED_MAX = 250

/**
 * The topics and their messages. Works on any connection that has a write transaction open: the writer thread's, or
 * the user's own. SQLite lets one transaction write at a time, so the next offset of a partition is a plain counter.
 *
 * A topic of P partitions has P of them for each lane: normal messages in 0 to P-1, from the beginning, high ones in P
 * to 2P-1 and low ones in 2P to 3P-1, from the first message of that priority on.
 */
export class Log {
  readonly #statements: Statements

  constructor(statements: Statements) {
    this.#statements = statements
  }

  findTopic(name: string): TopicRow | undefined {
    return this.#statements.get<TopicRow>(sql.FIND_TOPIC, name)
  }

  topic(name: string): TopicRow {
    const row = this.findTopic(name)
    if (!row) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: name })
    return row
  }

  /** Whether the topic is there, exactly as it is wanted. */
  isConfigured(config: TopicConfig): boolean {
    const values = [config.topic, config.kind, config.partitions, ...changeableOf(config)]
    return this.#statements.get(sql.FIND_CONFIGURED_TOPIC, ...values) !== undefined
  }

  ensureTopic(config: TopicConfig): void {
    const stored = this.findTopic(config.topic)
    const changeable = changeableOf(config)
    if (stored) {
      refuseConflict(stored, config)
      this.#statements.run(sql.UPDATE_TOPIC, ...changeable, stored.topicId)
      return
    }
    this.#statements.run(sql.INSERT_TOPIC, config.topic, config.kind, config.partitions, ...changeable)
    this.#beginLane(this.topic(config.topic).topicId, 0)
  }

  /** Stores a group, or throws POSTHORN_BACKLOG_FULL before it has stored any of it. */
  append(group: WireGroup, nowMs: number): { bases: number[]; receipts: AppendReceipt[] } {
    const topic = this.topic(group.topic)
    if (topic.maxBacklog !== null) this.#refuseFullBacklog(topic, topic.maxBacklog)
    refuseOtherPartitions(topic, group)
    const bases = group.runs.map((run) => this.#appendRun(topic.topicId, group.shared, run))
    return { bases, receipts: this.#appendSingles(topic, group, nowMs) }
  }

  /** Moves delayed messages that are due into the log: a limited number, and says whether it may have left some. */
  promoteDue(nowMs: number): { promoted: number; unfinished: boolean } {
    const due = this.#statements.all<DelayedRow>(sql.DUE_DELAYED, nowMs, PROMOTED_MAX)
    const alike = Map.groupBy(due, (row) => `${row.topicId} ${row.partition} ${row.shared}`)
    for (const rows of alike.values()) {
      const { topicId, partition, shared } = rows[0]!
      for (const part of portions(rows)) {
        const base = this.#appendRun(topicId, shared, joinRun(partition, part))
        for (const [place, { id }] of part.entries()) {
          this.#statements.run(sql.PLACE_ID, partition, base + place, topicId, id)
        }
      }
    }
    for (const { delayedId } of due) this.#statements.run(sql.DELETE_DELAYED, delayedId)
    return { promoted: due.length, unfinished: due.length === PROMOTED_MAX }
  }

  /** When the next delayed message is due. */
  nextDelayedMs(): number | undefined {
    return this.#statements.get<{ dueAtMs: number | null }>(sql.NEXT_DELAYED)?.dueAtMs ?? undefined
  }

  nextOffset(topicId: number, partition: number): number {
    return this.#statements.get<{ nextOffset: number }>(sql.NEXT_OFFSET, topicId, partition)?.nextOffset ?? 0
  }

  /** The partitions that are there, of all lanes, in order. */
  partitionNumbers(topicId: number): number[] {
    return this.#statements.all<{ partition: number }>(sql.PARTITION_NUMBERS, topicId).map((row) => row.partition)
  }

  /** The batches from `offset` on, at most `limit`: first the one that holds it, if it is still there. */
  findBatches(topicId: number, partition: number, offset: number, limit: number): BatchPlace[] {
    const places = this.#statements.all<BatchPlace>(sql.FIND_BATCHES, topicId, partition, offset, limit + 1)
    const first = places[0]
    if (first && first.baseOffset + first.count <= offset) places.shift()
    return places.slice(0, limit)
  }

  readBatch(batchId: number): BatchRow | undefined {
    return this.#statements.get<BatchRow>(sql.READ_BATCH, batchId)
  }

  /** Returns how many. */
  forgetExpiredIds(nowMs: number): number {
    return Number(this.#statements.run(sql.DELETE_EXPIRED_IDS, nowMs).changes)
  }

  #appendRun(topicId: number, shared: string, run: WireRun): number {
    const { partition, count, firstTimeMs, lastTimeMs, data } = run
    const base = this.#advance(topicId, partition, count) - count
    this.#statements.run(
      sql.INSERT_BATCH,
      topicId,
      partition,
      base,
      count,
      firstTimeMs,
      lastTimeMs,
      batchChecksum({ topicId, partition, baseOffset: base, count, shared, data }),
      shared,
      data,
    )
    return base
  }

  // Returns where the partition ends now.
  #advance(topicId: number, partition: number, count: number): number {
    const advanced = this.#statements.get<{ nextOffset: number }>(sql.ADVANCE_PARTITION, count, topicId, partition)
    if (advanced) return advanced.nextOffset
    this.#beginLane(topicId, partition)
    return this.#advance(topicId, partition, count)
  }

  /** Makes the lane that the partition belongs to, and lets every subscription begin at its beginning. */
  #beginLane(topicId: number, partition: number): void {
    const { partitions } = this.#statements.get<{ partitions: number }>(sql.PARTITIONS_OF_LANE, topicId)!
    const first = partition - (partition % partitions)
    for (let number = first; number < first + partitions; number++) {
      this.#statements.run(sql.INSERT_PARTITION, topicId, number)
      this.#statements.run(sql.INSERT_LANE_CURSORS, topicId, number)
    }
  }

  #appendSingles(topic: TopicRow, group: WireGroup, nowMs: number): AppendReceipt[] {
    const receipts: AppendReceipt[] = new Array(group.singles.length)
    const fresh = new Map<number, FreshSingles>()
    for (const [index, single] of group.singles.entries()) {
      const waits = single.deliverAtMs !== undefined && single.deliverAtMs > nowMs
      const singles = waits ? undefined : this.#freshIn(topic.topicId, single.partition, fresh)
      if (single.deduplicate && !this.#rememberId(topic, single, singles, nowMs)) {
        receipts[index] = { duplicate: true }
      } else if (singles) {
        singles.list.push({ ...single, index })
      } else {
        this.#delay(topic, group.shared, single, single.deliverAtMs!)
        receipts[index] = { duplicate: false }
      }
    }
    for (const [partition, { list }] of fresh) {
      for (const part of portions(list)) {
        const base = this.#appendRun(topic.topicId, group.shared, joinRun(partition, part))
        for (const [place, { index }] of part.entries()) {
          receipts[index] = { duplicate: false, partition, offset: base + place }
        }
      }
    }
    return receipts
  }

  #freshIn(topicId: number, partition: number, fresh: Map<number, FreshSingles>): FreshSingles {
    let singles = fresh.get(partition)
    if (!singles) {
      singles = { base: this.nextOffset(topicId, partition), list: [] }
      fresh.set(partition, singles)
    }
    return singles
  }

  // Together with the place that the message is about to have, unless it is delayed.
  #rememberId(topic: TopicRow, { id, partition }: WireSingle, singles: FreshSingles | undefined, nowMs: number) {
    const expiresAtMs = nowMs + topic.deduplicationWindowMs
    const offset = singles ? singles.base + singles.list.length : null
    const place = singles ? partition : null
    const { changes } = this.#statements.run(sql.REMEMBER_ID, topic.topicId, id, expiresAtMs, nowMs, place, offset)
    return Number(changes) > 0
  }

  #delay(topic: TopicRow, shared: string, single: WireSingle, deliverAtMs: number): void {
    const { partition, id, timeMs, own } = single
    this.#statements.run(sql.INSERT_DELAYED, topic.topicId, partition, id, deliverAtMs, timeMs, shared, own)
  }

  #refuseFullBacklog(topic: TopicRow, limit: number): void {
    const { backlog } = this.#statements.get<{ backlog: number }>(sql.BACKLOG, topic.topicId)!
    if (backlog < limit) return
    throw new PosthornError('POSTHORN_BACKLOG_FULL', { topic: topic.name, backlog, limit })
  }
}

// Cuts a list into parts that are small enough for a record batch each.
function portions<Message extends { readonly own: string }>(messages: readonly Message[]): Message[][] {
  const parts: Message[][] = []
  let characters = Number.POSITIVE_INFINITY
  for (const message of messages) {
    characters += message.own.length + 1
    if (characters > RUN_CHARACTERS_MAX || parts.at(-1)!.length >= RUN_MESSAGES_MAX) {
      parts.push([])
      characters = message.own.length
    }
    parts.at(-1)!.push(message)
  }
  return parts
}

// Delayed messages come in the order in which they are due, not in that of their times.
function joinRun(partition: number, messages: readonly { own: string; timeMs: number }[]): WireRun {
  return {
    partition,
    count: messages.length,
    firstTimeMs: messages.reduce((earliest, { timeMs }) => Math.min(earliest, timeMs), Number.POSITIVE_INFINITY),
    lastTimeMs: messages.reduce((latest, { timeMs }) => Math.max(latest, timeMs), Number.NEGATIVE_INFINITY),
    data: `[${messages.map((message) => message.own).join(',')}]`,
  }
}

// The publisher knew the topic before it was deleted and made anew. Its numbers may mean other lanes now.
function refuseOtherPartitions({ name, partitions: stored }: TopicRow, { partitions: wanted }: WireGroup): void {
  if (wanted === stored) return
  throw new PosthornError('POSTHORN_TOPIC_CONFLICT', { topic: name, setting: 'partitions', stored, wanted })
}

function changeableOf({ deduplicationWindowMs, retention, maxBacklog }: TopicConfig): (number | null)[] {
  const { maxAgeMs, maxBytes, dropUnread } = retention
  return [deduplicationWindowMs, maxAgeMs, maxBytes ?? null, Number(dropUnread), maxBacklog ?? null]
}

function refuseConflict(stored: TopicRow, wanted: TopicConfig): void {
  for (const setting of ['kind', 'partitions'] as const) {
    if (stored[setting] === wanted[setting]) continue
    throw new PosthornError('POSTHORN_TOPIC_CONFLICT', {
      topic: wanted.topic,
      setting,
      stored: stored[setting],
      wanted: wanted[setting],
    })
  }
}
