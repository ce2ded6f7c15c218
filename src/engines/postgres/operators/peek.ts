import type { PeekedMessage, PeekOptions } from '../../../engine.ts'
import type { Queryable } from '../database/statement.ts'
import type { BatchReader } from '../log/batches.ts'
import { endsOf } from '../log/positions.ts'

/** How many messages it looks at to find one behind those that cannot be read. */
const LOOKED_AT_LEAST = 1_000

/** Messages of a partition in offset order, without those that are damaged. */
export async function peek(
  rows: Queryable,
  batches: BatchReader,
  topicId: number,
  { partition, fromOffset, limit }: PeekOptions,
): Promise<PeekedMessage[]> {
  const ends = await endsOf(rows, [topicId])
  const { firstOffset, nextOffset } = ends.find((end) => end.partition === partition) ?? {
    firstOffset: 0,
    nextOffset: 0,
  }
  const found: PeekedMessage[] = []
  let from = Math.max(fromOffset, firstOffset)
  for (let step = limit; from < nextOffset && found.length < limit; step = Math.max(limit, LOOKED_AT_LEAST)) {
    const to = Math.min(from + step, nextOffset)
    const { messages } = await batches.read(rows, [{ topicId, partition, from, to }])
    for (const message of messages[0] ?? []) found.push({ partition, message })
    from = to
  }
  return found.slice(0, limit)
}
