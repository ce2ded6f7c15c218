import type { AppendGroup, AppendOutcome, AppendReceipt, NewMessage } from '../../engine.ts'
import { partitionFor, RunPacker } from '../record-batches.ts'
import type { WireGroup, WireOutcome, WireRun, WireSingle } from './protocol.ts'
import { fromWire } from './wire-error.ts'

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
    if (!looksUp && message.deliverAtMs === undefined) {
      const { run, index } = packer.add(partition, message.json, message.timeMs)
      return { part: run, index }
    }
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
