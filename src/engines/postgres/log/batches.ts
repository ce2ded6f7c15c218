import type { StoredMessage } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import { decodeBatch } from '../../../message/decode.ts'
import { batchChecksum } from '../../checksum.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { topics } from '../sql/topics.ts'
import { type DecodedBatch, DecodedBatches } from './decoded-batches.ts'

/** The messages `[from, to)` of a partition. */
export interface MessageRange {
  readonly topicId: number
  readonly partition: number
  readonly from: number
  readonly to: number
}

export interface DamagedRange {
  /** Of the ranges that were asked for, the place of the one that it is a part of. */
  readonly range: number
  readonly from: number
  readonly to: number
  /** POSTHORN_BATCH_CORRUPT */
  readonly error: PosthornError
}

export interface ReadOutcome {
  /** For each range, rising. Messages that retention has deleted are missing, and damaged ones. */
  readonly messages: readonly (readonly StoredMessage[])[]
  readonly damaged: readonly DamagedRange[]
}

interface BatchRow {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly bytes: number
  readonly checksum: number
  readonly shared: string
  readonly data: string
}

/** A row as it was written, by this process, and is on stable storage. */
export type WrittenBatch = Omit<BatchRow, 'checksum'>

/**
 * Reads messages by their offsets. Each batch is decoded once for all subscriptions of the process; what was used last is
 * kept, so that most reads ask the server for nothing.
 */
export class BatchReader {
  readonly #decoded: DecodedBatches

  constructor(decoded = new DecodedBatches()) {
    this.#decoded = decoded
  }

  async read(rows: Queryable, ranges: readonly MessageRange[]): Promise<ReadOutcome> {
    // Taken before anything is fetched: what is added then may push out what was here.
    const known = ranges.map((range) => this.#decoded.take(range))
    const missing = ranges.filter((_, place) => known[place] === undefined)
    const fetched = missing.length === 0 ? [] : await this.#fetch(rows, missing)
    const outcomes = ranges.map((range, place) => {
      const found = known[place] ?? fetched.filter((batch) => overlaps(batch, range))
      return found.map((batch) => ({ batch, ...clip(batch, range) }))
    })
    const messages = outcomes.map((parts) => joined(parts.map(messagesOf)))
    return { messages, damaged: await damageOf(rows, ranges, outcomes) }
  }

  /** What was read may not be what is stored any more. */
  forgetAll(): void {
    this.#decoded.clear()
  }

  /** Batches that this process has stored, and that it may soon read. */
  offer(batches: readonly WrittenBatch[]): void {
    for (const batch of batches) {
      if (!this.#decoded.reads(batch.topicId)) continue
      this.#decoded.add({ ...placeOf(batch), messages: () => decodeBatch(batch.shared, batch.data, batch.baseOffset) })
    }
  }

  async #fetch(rows: Queryable, ranges: readonly MessageRange[]): Promise<DecodedBatch[]> {
    const found = await rows.rows<BatchRow>(
      sql.log.read,
      ranges.map(({ topicId }) => topicId),
      ranges.map(({ partition }) => partition),
      ranges.map(({ from }) => from),
      ranges.map(({ to }) => to),
    )
    return found.map((row) => this.#decoded.add({ ...placeOf(row), messages: decode(row) }))
  }
}

interface Part {
  readonly batch: DecodedBatch
  readonly from: number
  readonly to: number
}

function placeOf({ topicId, partition, baseOffset, count, bytes }: WrittenBatch): Omit<DecodedBatch, 'messages'> {
  return { topicId, partition, baseOffset, count, bytes }
}

/** Undefined when it is damaged. */
function decode(row: BatchRow): readonly StoredMessage[] | undefined {
  if (batchChecksum(row) !== row.checksum) return undefined
  try {
    const messages = decodeBatch(row.shared, row.data, row.baseOffset)
    return messages.length === row.count ? messages : undefined
  } catch {
    return undefined
  }
}

function overlaps({ topicId, partition, baseOffset, count }: DecodedBatch, range: MessageRange): boolean {
  if (topicId !== range.topicId || partition !== range.partition) return false
  return baseOffset < range.to && baseOffset + count > range.from
}

function clip({ baseOffset, count }: DecodedBatch, { from, to }: MessageRange): { from: number; to: number } {
  return { from: Math.max(from, baseOffset), to: Math.min(to, baseOffset + count) }
}

function messagesOf({ batch, from, to }: Part): readonly StoredMessage[] {
  const messages = DecodedBatches.messagesOf(batch) ?? []
  const { baseOffset, count } = batch
  if (from === baseOffset && to === baseOffset + count) return messages
  return messages.slice(from - baseOffset, to - baseOffset)
}

function joined(parts: readonly (readonly StoredMessage[])[]): readonly StoredMessage[] {
  return parts.length === 1 ? parts[0]! : parts.flat()
}

async function damageOf(
  rows: Queryable,
  ranges: readonly MessageRange[],
  outcomes: readonly (readonly Part[])[],
): Promise<DamagedRange[]> {
  const damaged: DamagedRange[] = []
  for (const [range, parts] of outcomes.entries()) {
    const { topicId, partition } = ranges[range]!
    for (const { batch, from, to } of parts) {
      if (DecodedBatches.messagesOf(batch)) continue
      const [found] = await rows.rows<{ topic: string }>(topics.nameOf, topicId)
      const details = { topic: found?.topic ?? `number ${topicId}`, partition, from, to: to - 1 }
      damaged.push({ range, from, to, error: new PosthornError('POSTHORN_BATCH_CORRUPT', details) })
    }
  }
  return damaged
}
