import type { AppendGroup, AppendOutcome, AppendReceipt, NewMessage } from '../../engine.ts'
import { partitionOfKey } from '../../message/partition.ts'
import { LANES } from '../lane-shares.ts'
import type { WireGroup, WireOutcome, WireRun, WireSingle } from './protocol.ts'
import { fromWire } from './wire-error.ts'

/** A record batch is one row: large enough to be cheap for each message, small enough to be lost without grief. */
export const RUN_MESSAGES_MAX = 1_000
export const RUN_CHARACTERS_MAX = 256 * 2 ** 10

interface Place {
  /** The run or, below zero, the single (as -1 - index) that the message became. */
  readonly part: number
  readonly index: number
}

/** A group on its way to the store, and what is needed to give each of its messages a receipt. */
export interface PackedGroup {
  readonly group: WireGroup
  /** Receipts of the group's messages, in order. */
  unpack(outcome: WireOutcome): AppendOutcome
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
 * Sorts the messages of a group into record batches by partition; those with an id to look up, or a time to wait for,
 * travel singly. Once one message's id has to be looked up, all of the group travel singly, which keeps their order.
 */
export function packGroup(group: AppendGroup, partitions: number, keylessPartition: number): PackedGroup {
  const { topic, shared, messages } = group
  const looksUp = messages.some((message) => message.deduplicate)
  const singles: WireSingle[] = []
  const packer = new RunPacker()
  const places = messages.map((message): Place => {
    const partition = partitionFor(message, partitions, keylessPartition)
    if (!looksUp && message.deliverAtMs === undefined) return packer.add(partition, message)
    singles.push(toSingle(message, partition))
    return { part: -singles.length, index: 0 }
  })
  const runs = packer.finish()
  return {
    group: { topic, partitions, shared, runs, singles },
    unpack: (outcome) => {
      if ('refused' in outcome) return { refused: fromWire(outcome.refused) }
      return { receipts: places.map((place) => receiptFor(place, runs, outcome)) }
    },
  }
}

function partitionFor({ key, priority }: NewMessage, partitions: number, keylessPartition: number): number {
  const first = priority === undefined ? 0 : LANES.indexOf(priority) * partitions
  if (partitions === 1) return first
  return first + (key === undefined ? keylessPartition % partitions : partitionOfKey(key, partitions))
}

function toSingle(message: NewMessage, partition: number): WireSingle {
  const { id, json, timeMs, deliverAtMs } = message
  return {
    partition,
    id,
    own: json,
    timeMs,
    deduplicate: message.deduplicate === true,
    ...(deliverAtMs !== undefined && { deliverAtMs }),
  }
}

function receiptFor(
  { part, index }: Place,
  runs: readonly WireRun[],
  { bases, receipts }: Extract<WireOutcome, { bases: unknown }>,
): AppendReceipt {
  if (part < 0) return receipts[-1 - part]!
  return { duplicate: false, partition: runs[part]!.partition, offset: bases[part]! + index }
}

class RunPacker {
  readonly #runs: OpenRun[] = []
  readonly #open = new Map<number, OpenRun>()

  add(partition: number, { json, timeMs }: NewMessage): Place {
    let run = this.#open.get(partition)
    if (!run || run.own.length >= RUN_MESSAGES_MAX || run.characters + json.length > RUN_CHARACTERS_MAX) {
      run = { partition, number: this.#runs.length, own: [], characters: 0, firstTimeMs: timeMs, lastTimeMs: timeMs }
      this.#runs.push(run)
      this.#open.set(partition, run)
    }
    run.characters += json.length + 1
    run.firstTimeMs = Math.min(run.firstTimeMs, timeMs)
    run.lastTimeMs = Math.max(run.lastTimeMs, timeMs)
    return { part: run.number, index: run.own.push(json) - 1 }
  }

  finish(): WireRun[] {
    return this.#runs.map(({ partition, own, firstTimeMs, lastTimeMs }) => ({
      partition,
      count: own.length,
      firstTimeMs,
      lastTimeMs,
      data: `[${own.join(',')}]`,
    }))
  }
}
