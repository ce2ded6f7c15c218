import { Buffer } from 'node:buffer'
import { batchChecksum } from '../../checksum.ts'
import type { Queryable, Transaction } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { topics } from '../sql/topics.ts'
import type { WrittenBatch } from './batches.ts'
import type { DelayedMessage, PackedRun } from './drafts.ts'
import { idHash } from './id-hash.ts'
import { textArray } from './text-array.ts'

/** The offsets that the next messages of partitions get, in topics that are locked. */
export class Heads {
  readonly #next = new Map<string, number>()

  note(heads: readonly { topicId: number; partition: number; nextOffset: number }[]): void {
    for (const { topicId, partition, nextOffset } of heads) this.#next.set(`${topicId}/${partition}`, nextOffset)
  }

  has(topicId: number, partition: number): boolean {
    return this.#next.has(`${topicId}/${partition}`)
  }

  /** Returns where so many more messages begin. */
  advance(topicId: number, partition: number, count: number): number {
    const base = this.#next.get(`${topicId}/${partition}`) ?? 0
    this.#next.set(`${topicId}/${partition}`, base + count)
    return base
  }
}

export interface Lane {
  readonly topicId: number
  readonly partition: number
  /** How many partitions a lane of the topic has. */
  readonly partitions: number
}

/** Makes the lanes that these partitions belong to, which begin with their first message. */
export async function addLanes(rows: Queryable, lanes: readonly Lane[]): Promise<void> {
  if (lanes.length === 0) return
  await rows.run(
    topics.addLanes,
    lanes.map(({ topicId }) => topicId),
    lanes.map(({ partition, partitions }) => partition - (partition % partitions)),
    lanes.map(({ partitions }) => partitions),
  )
}

export function toBatches(runs: readonly PackedRun[], heads: Heads): (WrittenBatch & PackedRun)[] {
  return runs.map((run) => {
    const baseOffset = heads.advance(run.topicId, run.partition, run.count)
    return { ...run, baseOffset, bytes: Buffer.byteLength(run.data) }
  })
}

export function insertBatches(rows: Transaction, batches: readonly (WrittenBatch & PackedRun)[]): void {
  if (batches.length === 0) return
  rows.send(
    sql.log.insert,
    batches.map(({ topicId }) => topicId),
    batches.map(({ partition }) => partition),
    batches.map(({ baseOffset }) => baseOffset),
    batches.map(({ count }) => count),
    batches.map(({ firstTimeMs }) => firstTimeMs),
    batches.map(({ lastTimeMs }) => lastTimeMs),
    batches.map(({ bytes }) => bytes),
    batches.map((batch) => batchChecksum(batch)),
    textArray(batches.map(({ shared }) => shared)),
    textArray(batches.map(({ data }) => data)),
  )
}

export function insertDelayed(rows: Transaction, delayed: readonly DelayedMessage[]): void {
  if (delayed.length === 0) return
  rows.send(
    sql.log.delay,
    delayed.map(({ topicId }) => topicId),
    delayed.map(({ partition }) => partition),
    delayed.map(({ message }) => idHash(message.id)),
    delayed.map(({ message }) => message.deliverAtMs),
    delayed.map(({ message }) => message.timeMs),
    textArray(delayed.map(({ shared }) => shared)),
    textArray(delayed.map(({ message }) => message.json)),
  )
}
