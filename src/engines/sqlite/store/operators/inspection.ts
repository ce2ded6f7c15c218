import type { PartitionState, PeekedMessage, PeekOptions, SubscriptionState, TopicState } from '../../../../engine.ts'
import { decodeBatch } from '../../../../message/decode.ts'
import * as sql from '../../sql/inspection.ts'
import { priorityOf } from '../delivery/fresh-lanes.ts'
import { bitsOf } from '../delivery/leases.ts'
import type { Statements } from '../file/connection.ts'
import { Breakers } from '../limits/breakers.ts'
import type { BatchRow, Log } from '../log/log.ts'
import { isIntact } from '../log/message-reader.ts'

interface TopicCounts extends Omit<TopicState, 'partitions'> {
  readonly topicId: number
  readonly partitionsOfLane: number
}

interface SubscriptionCounts {
  readonly subscriptionId: number
  readonly topicId: number
  readonly topic: string
  readonly subscription: string
  readonly paused: 0 | 1
  readonly retrying: number
  readonly parked: number
  readonly leasedRetries: number
  readonly deadLetters: number
  readonly blockedKeys: number
}

interface Range {
  readonly leaseId: number
  readonly fromOffset: number
  readonly toOffset: number
  readonly settled: Uint8Array | null
  readonly sessionId: number | null
}

interface Position {
  readonly partition: number
  readonly offset: number
  readonly backlog: number
}

/** Reads the state of everything for operators. Writes nothing. */
export class Inspection {
  readonly #statements: Statements
  readonly #log: Log
  readonly #breakers: Breakers

  constructor(statements: Statements, log: Log) {
    this.#statements = statements
    this.#log = log
    this.#breakers = new Breakers(statements)
  }

  topics(): TopicState[] {
    return this.#statements.all<TopicCounts>(sql.LIST_TOPICS).map(({ topicId, partitionsOfLane, ...row }) => ({
      ...row,
      partitions: this.#statements
        .all<Omit<PartitionState, 'priority'>>(sql.LIST_PARTITIONS, topicId)
        .map((partition) => ({ ...partition, priority: priorityOf(partition.partition, partitionsOfLane) })),
    }))
  }

  subscriptions(topic: string | undefined, nowMs: number): SubscriptionState[] {
    if (topic !== undefined) this.#log.topic(topic)
    const rows = this.#statements.all<SubscriptionCounts>(sql.LIST_SUBSCRIPTIONS, topic ?? null)
    return rows.map((row) => this.#subscription(row, nowMs))
  }

  peek(topic: string, { partition, fromOffset, limit }: PeekOptions): PeekedMessage[] {
    const { topicId } = this.#log.topic(topic)
    const found: PeekedMessage[] = []
    for (const place of this.#log.findBatches(topicId, partition, fromOffset, limit)) {
      const batch = this.#log.readBatch(place.batchId)
      if (!batch || !isIntact(batch)) continue
      const messages = decodeBatch(batch.shared, batch.data, batch.baseOffset)
      for (const message of messages) {
        if (message.offset >= fromOffset && found.length < limit) found.push({ partition, message })
      }
      if (found.length >= limit) break
    }
    return found
  }

  /** Everything that is wrong with the file, in words. */
  problems(): string[] {
    const rows = this.#statements.all<{ integrity_check: string }>('PRAGMA integrity_check')
    const problems = rows.map((row) => row.integrity_check).filter((text) => text !== 'ok')
    for (const { batchId, topic } of this.#statements.all<{ batchId: number; topic: string }>(sql.ALL_BATCHES)) {
      const batch = this.#log.readBatch(batchId)
      if (batch && !isIntact(batch)) problems.push(describeDamage(batch, topic))
    }
    const broken = this.#statements.all<{ problem: string }>(sql.BROKEN_PLACES)
    return problems.concat(broken.map((row) => row.problem))
  }

  #subscription(row: SubscriptionCounts, nowMs: number): SubscriptionState {
    const positions = this.#statements.all<Position>(sql.LIST_POSITIONS, row.subscriptionId, row.topicId)
    const ranges = this.#statements.all<Range>(sql.LIST_RANGES, row.subscriptionId)
    return {
      topic: row.topic,
      subscription: row.subscription,
      paused: row.paused === 1,
      backlog: positions.reduce((sum, position) => sum + position.backlog, 0),
      lagMs: this.#lagMs(row.topicId, positions, nowMs),
      leased: countOpen(ranges, (range) => range.sessionId !== null) + row.leasedRetries,
      retrying: row.retrying,
      returned: countOpen(ranges, (range) => range.sessionId === null),
      parked: row.parked,
      blockedKeys: row.blockedKeys,
      breakers: this.#breakers.list(row.subscriptionId),
      deadLetters: row.deadLetters,
      positions: positions.map(({ partition, offset }) => ({ partition, offset })),
    }
  }

  #lagMs(topicId: number, positions: readonly Position[], nowMs: number): number {
    let lagMs = 0
    for (const { partition, offset, backlog } of positions) {
      if (backlog === 0) continue
      const row = this.#statements.get<{ timeMs: number }>(sql.TIME_AT_OFFSET, topicId, partition, offset)
      if (row) lagMs = Math.max(lagMs, nowMs - row.timeMs)
    }
    return lagMs
  }
}

function countOpen(ranges: readonly Range[], matches: (range: Range) => boolean): number {
  return ranges.filter(matches).reduce((sum, range) => sum + bitsOf(range).open, 0)
}

function describeDamage(batch: BatchRow, topic: string): string {
  const last = batch.baseOffset + batch.count - 1
  return `Messages ${batch.baseOffset} to ${last} of topic ${topic}, partition ${batch.partition}, are damaged.`
}
