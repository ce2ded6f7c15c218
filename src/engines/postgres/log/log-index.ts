/**
 * What this process knows of where batches begin and how large they are. `refresh` asks the server, and what this process
 * appends is added without asking.
 *
 * Of a partition it knows batches by their base offsets, rising; batches never change, so what is known stays true until
 * retention deletes it, but there may be gaps of batches that are not known. `nextOffset` and `firstOffset` are as they
 * were at the last refresh, or later. Sizes of what is not known are guessed from what is.
 *
 * It may be told of what is committed only: appends by transactions that are open yet must not be refreshed from them.
 */
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { type BatchDescriptor, PartitionIndex } from './partition-index.ts'

export interface LogView {
  /** Those that are known, of all lanes, rising. */
  partitions(topicId: number): readonly number[]
  firstOffset(topicId: number, partition: number): number
  nextOffset(topicId: number, partition: number): number
  /** How far from `from` on, up to `end`, about so many bytes reach: over one message at least. */
  reach(topicId: number, partition: number, from: number, end: number, bytesMax: number): number
  /** What the messages of `[from, to)` take up, about. */
  bytesOf(topicId: number, partition: number, from: number, to: number): number
}

export interface WantedTopic {
  readonly topicId: number
  readonly generation: number
  /** From where on batches are wanted; of partitions that it does not name, from their beginning. */
  readonly from: ReadonlyMap<number, number>
}

export interface AddedBatch extends BatchDescriptor {
  readonly topicId: number
  readonly partition: number
}

interface DescribedRow {
  readonly topicId: number
  readonly partition: number
  readonly firstOffset: number
  readonly nextOffset: number
  /** Null: there are none from there on. */
  readonly baseOffset: number | null
  readonly count: number
  readonly bytes: number
}

interface TopicIndex {
  generation: number
  readonly partitions: Map<number, PartitionIndex>
  /** Their numbers, rising. */
  numbers: readonly number[]
}

/** How many batches are asked for at a time, of each partition. */
const DESCRIBED_AT_ONCE = 512

export class LogIndex implements LogView {
  readonly #topics = new Map<number, TopicIndex>()

  /** What is known may not be so any more. */
  forgetAll(): void {
    this.#topics.clear()
  }

  /** After it, batches from the wanted offsets on are known: all, or a few hundred of each partition. */
  async refresh(rows: Queryable, wanted: readonly WantedTopic[]): Promise<void> {
    const known: Record<string, number> = {}
    for (const { topicId, generation, from } of wanted) {
      const topic = this.#topic(topicId, generation)
      for (const partition of new Set([...topic.numbers, ...from.keys()])) {
        const start = topic.partitions.get(partition)?.unknownFrom(from.get(partition) ?? 0) ?? from.get(partition) ?? 0
        known[`${topicId}/${partition}`] = start
      }
    }
    const topicIds = [...new Set(wanted.map(({ topicId }) => topicId))]
    this.#merge(await rows.rows<DescribedRow>(sql.log.describe, topicIds, JSON.stringify(known), DESCRIBED_AT_ONCE))
  }

  /** Batches that are committed. */
  added(batches: readonly AddedBatch[]): void {
    for (const batch of batches) this.#partition(batch.topicId, batch.partition)?.append(batch)
  }

  /** The topic was deleted. */
  forget(topicId: number): void {
    this.#topics.delete(topicId)
  }

  partitions(topicId: number): readonly number[] {
    return this.#topics.get(topicId)?.numbers ?? []
  }

  firstOffset(topicId: number, partition: number): number {
    return this.#partition(topicId, partition)?.firstOffset ?? 0
  }

  nextOffset(topicId: number, partition: number): number {
    return this.#partition(topicId, partition)?.nextOffset ?? 0
  }

  reach(topicId: number, partition: number, from: number, end: number, bytesMax: number): number {
    return this.#partition(topicId, partition)?.reach(from, end, bytesMax) ?? end
  }

  bytesOf(topicId: number, partition: number, from: number, to: number): number {
    return this.#partition(topicId, partition)?.bytesOf(from, to) ?? 0
  }

  #partition(topicId: number, partition: number): PartitionIndex | undefined {
    return this.#topics.get(topicId)?.partitions.get(partition)
  }

  #topic(topicId: number, generation = 0): TopicIndex {
    let topic = this.#topics.get(topicId)
    if (!topic || topic.generation < generation) {
      topic = { generation, partitions: new Map(), numbers: [] }
      this.#topics.set(topicId, topic)
    }
    return topic
  }

  #merge(described: readonly DescribedRow[]): void {
    for (const { topicId, partition, firstOffset, nextOffset, baseOffset, count, bytes } of described) {
      const topic = this.#topic(topicId)
      let known = topic.partitions.get(partition)
      if (!known) {
        known = new PartitionIndex()
        topic.partitions.set(partition, known)
        topic.numbers = [...topic.numbers, partition].toSorted((one, other) => one - other)
      }
      known.moveEnds(firstOffset, nextOffset)
      if (baseOffset !== null) known.add({ baseOffset, count, bytes })
    }
  }
}
