import type { NewMessage } from '../engine.ts'
import { partitionOfKey } from '../message/partition.ts'
import { LANES } from './lane-shares.ts'

/** A record batch is one row: large enough to be cheap for each message, small enough to be lost without grief. */
export const RUN_MESSAGES_MAX = 1_000
export const RUN_CHARACTERS_MAX = 256 * 2 ** 10

/** Messages that are about to be one record batch. */
export interface Run {
  readonly partition: number
  readonly count: number
  readonly firstTimeMs: number
  readonly lastTimeMs: number
  /** JSON array of the messages' own attributes. */
  readonly data: string
}

/** Where a message stands in the runs of a packer. */
export interface RunPlace {
  readonly run: number
  readonly index: number
}

interface OpenRun {
  readonly partition: number
  readonly number: number
  readonly own: string[]
  characters: number
  firstTimeMs: number
  lastTimeMs: number
}

/**
 * The partition of a message: each lane has as many as its topic. Those without a key go where `keylessPartition` says,
 * which may be any whole number.
 */
export function partitionFor(
  { key, priority }: Pick<NewMessage, 'key' | 'priority'>,
  partitions: number,
  keylessPartition: number,
): number {
  const first = priority === undefined ? 0 : LANES.indexOf(priority) * partitions
  if (partitions === 1) return first
  return first + (key === undefined ? keylessPartition % partitions : partitionOfKey(key, partitions))
}

/** Sorts messages that share their attributes into record batches, by partition. Each partition keeps its order. */
export class RunPacker {
  readonly #runs: OpenRun[] = []
  readonly #open = new Map<number, OpenRun>()

  add(partition: number, json: string, timeMs: number): RunPlace {
    let run = this.#open.get(partition)
    if (!run || run.own.length >= RUN_MESSAGES_MAX || run.characters + json.length > RUN_CHARACTERS_MAX) {
      run = { partition, number: this.#runs.length, own: [], characters: 0, firstTimeMs: timeMs, lastTimeMs: timeMs }
      this.#runs.push(run)
      this.#open.set(partition, run)
    }
    run.characters += json.length + 1
    run.firstTimeMs = Math.min(run.firstTimeMs, timeMs)
    run.lastTimeMs = Math.max(run.lastTimeMs, timeMs)
    return { run: run.number, index: run.own.push(json) - 1 }
  }

  finish(): Run[] {
    return this.#runs.map(({ partition, own, firstTimeMs, lastTimeMs }) => ({
      partition,
      count: own.length,
      firstTimeMs,
      lastTimeMs,
      data: `[${own.join(',')}]`,
    }))
  }
}
