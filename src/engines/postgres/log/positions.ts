import type { StartPosition } from '../../../engine.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import type { BatchReader } from './batches.ts'

export interface PartitionEnds {
  readonly topicId: number
  readonly partition: number
  readonly firstOffset: number
  readonly nextOffset: number
}

interface FoundBatch {
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
}

/** The first offset that is kept of each partition, and the next one: all partitions that there are, rising. */
export function endsOf(rows: Queryable, topicIds: readonly number[]): Promise<PartitionEnds[]> {
  return rows.rows<PartitionEnds>(sql.log.ends, topicIds)
}

/** The offsets that a position means, by partition: of all that it speaks of. */
export async function locate(
  rows: Queryable,
  batches: BatchReader,
  topicId: number,
  position: StartPosition,
): Promise<Map<number, number>> {
  const ends = await endsOf(rows, [topicId])
  if ('timeMs' in position) return locateTime(rows, batches, ends, topicId, position.timeMs)
  const meant = ends.filter(({ partition }) => {
    return 'at' in position || position.partition === undefined || position.partition === partition
  })
  return new Map(
    meant.map(({ partition, firstOffset, nextOffset }) => {
      if ('at' in position) return [partition, position.at === 'earliest' ? firstOffset : nextOffset]
      return [partition, Math.min(Math.max(position.offset, firstOffset), nextOffset)]
    }),
  )
}

/** The first message of that time or later. Of a damaged batch nothing is known but where it begins. */
async function locateTime(
  rows: Queryable,
  batches: BatchReader,
  ends: readonly PartitionEnds[],
  topicId: number,
  timeMs: number,
): Promise<Map<number, number>> {
  const found = await rows.rows<FoundBatch>(sql.log.atTime, topicId, timeMs)
  const ranges = found.map(({ partition, baseOffset: from, count }) => ({ topicId, partition, from, to: from + count }))
  const { messages } = await batches.read(rows, ranges)
  const offsets = new Map(ends.map(({ partition, nextOffset }) => [partition, nextOffset]))
  for (const [place, { partition, from }] of ranges.entries()) {
    const first = messages[place]!.find(({ event }) => Date.parse(event.time) >= timeMs)
    offsets.set(partition, first?.offset ?? from)
  }
  return offsets
}
