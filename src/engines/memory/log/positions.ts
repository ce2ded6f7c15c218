import type { StartPosition } from '../../../engine.ts'
import type { Topic } from '../topic.ts'
import type { DecodedBatches } from './decoded.ts'
import type { PartitionLog } from './log.ts'

/** Where a new subscription starts, by partition: at the end of those that `start` does not name. */
export function startOffsets(
  topic: Topic,
  start: StartPosition | undefined,
  decoded: DecodedBatches,
): Map<number, number> {
  const position = start ?? { at: topic.hadSubscription ? 'latest' : 'earliest' }
  const offsets = Array.from(topic.logs, ([partition, log]) => {
    return [partition, offsetOf(log, partition, position, decoded) ?? log.nextOffset] as const
  })
  return new Map(offsets)
}

/** The offset that a position means in one partition; undefined when it names another partition. */
export function offsetOf(
  log: PartitionLog,
  partition: number,
  position: StartPosition,
  decoded: DecodedBatches,
): number | undefined {
  if ('at' in position) return position.at === 'earliest' ? log.firstOffset : log.nextOffset
  if ('timeMs' in position) return offsetAtTime(log, position.timeMs, decoded)
  if (position.partition !== undefined && position.partition !== partition) return undefined
  return Math.min(Math.max(position.offset, log.firstOffset), log.nextOffset)
}

/** The first message of that time or later. */
function offsetAtTime(log: PartitionLog, timeMs: number, decoded: DecodedBatches): number {
  for (const batch of log.batches(log.firstOffset, log.nextOffset)) {
    if (batch.lastTimeMs < timeMs) continue
    const messages = decoded.read(log, batch.baseOffset, batch.baseOffset + batch.count)
    const first = messages.find(({ event }) => Date.parse(event.time) >= timeMs)
    return first?.offset ?? batch.baseOffset
  }
  return log.nextOffset
}
