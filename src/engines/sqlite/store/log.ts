import type { AppendReceipt, TopicConfig } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { WireGroup, WireRun, WireSingle } from '../protocol.ts'
import * as sql from '../sql/log.ts'
import { RUN_CHARACTERS_MAX, RUN_MESSAGES_MAX } from '../wire-group.ts'
import { batchChecksum } from './checksum.ts'
import type { Statements } from './connection.ts'

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
  readonly timeMs: number
  readonly shared: string
  readonly own: string
}

/** Messages may be large, and all of them are in memory at once. */
const PROMOTED_MAX = 250

/**
 * The topics and their messages. Works on any connection that has a write transaction open: the writer thread's, or
 * the user's own. SQLite lets one transaction write at a time, so the next offset of a partition is a plain counter.
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
    const { topicId } = this.topic(config.topic)
    for (let partition = 0; partition < config.partitions; partition++) {
      this.#statements.run(sql.INSERT_PARTITION, topicId, partition)
    }
  }

  /** Stores a group, or throws POSTHORN_BACKLOG_FULL before it has stored any of it. */
  append(group: WireGroup, nowMs: number): { bases: number[]; receipts: AppendReceipt[] } {
    const topic = this.topic(group.topic)
    if (topic.maxBacklog !== null) this.#refuseFullBacklog(topic, topic.maxBacklog)
    refuseUnknownPartitions(topic, group)
    const bases = group.runs.map((run) => this.#appendRun(topic.topicId, group.shared, run))
    return { bases, receipts: this.#appendSingles(topic, group, nowMs) }
  }

  /** Moves delayed messages that are due into the log: a limited number, and says whether it may have left some. */
  promoteDue(nowMs: number): { promoted: number; unfinished: boolean } {
    const due = this.#statements.all<DelayedRow>(sql.DUE_DELAYED, nowMs, PROMOTED_MAX)
    const alike = Map.groupBy(due, (row) => `${row.topicId} ${row.partition} ${row.shared}`)
    for (const rows of alike.values()) {
      const { topicId, partition, shared } = rows[0]!
      for (const part of portions(rows)) this.#appendRun(topicId, shared, joinRun(partition, part))
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
    const advanced = this.#statements.get<{ nextOffset: number }>(
      sql.ADVANCE_PARTITION,
      run.count,
      topicId,
      run.partition,
    )!
    const base = advanced.nextOffset - run.count
    const { partition, count, firstTimeMs, lastTimeMs, data } = run
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

  #appendSingles(topic: TopicRow, group: WireGroup, nowMs: number): AppendReceipt[] {
    const receipts: AppendReceipt[] = new Array(group.singles.length)
    const fresh = new Map<number, (WireSingle & { index: number })[]>()
    for (const [index, single] of group.singles.entries()) {
      if (single.deduplicate && !this.#rememberId(topic, single.id, nowMs)) {
        receipts[index] = { duplicate: true }
      } else if (single.deliverAtMs !== undefined && single.deliverAtMs > nowMs) {
        this.#delay(topic, group.shared, single, single.deliverAtMs)
        receipts[index] = { duplicate: false }
      } else {
        const list = fresh.get(single.partition)
        if (list) list.push({ ...single, index })
        else fresh.set(single.partition, [{ ...single, index }])
      }
    }
    for (const [partition, list] of fresh) {
      for (const part of portions(list)) {
        const base = this.#appendRun(topic.topicId, group.shared, joinRun(partition, part))
        for (const [place, { index }] of part.entries()) {
          receipts[index] = { duplicate: false, partition, offset: base + place }
        }
      }
    }
    return receipts
  }

  #rememberId(topic: TopicRow, id: string, nowMs: number): boolean {
    const expiresAtMs = nowMs + topic.deduplicationWindowMs
    return Number(this.#statements.run(sql.REMEMBER_ID, topic.topicId, id, expiresAtMs, nowMs).changes) > 0
  }

  #delay(topic: TopicRow, shared: string, single: WireSingle, deliverAtMs: number): void {
    const { partition, timeMs, own } = single
    this.#statements.run(sql.INSERT_DELAYED, topic.topicId, partition, deliverAtMs, timeMs, shared, own)
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

// The publisher knew the topic before it was deleted and made anew, with fewer partitions.
function refuseUnknownPartitions(topic: TopicRow, { runs, singles }: WireGroup): void {
  const wanted = 1 + [...runs, ...singles].reduce((max, { partition }) => Math.max(max, partition), 0)
  if (wanted <= topic.partitions) return
  const { name, partitions: stored } = topic
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
