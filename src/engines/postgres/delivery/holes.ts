/**
 * Messages of a plan that no batch holds, though the log should have them: somebody deleted a batch, or the server lost it.
 * They are as lost as what cannot be read, and must not count as settled. What retention or a purge deletes is below the
 * floor of its partition, which rises together with that, or before.
 */
import { PosthornError } from '../../../errors.ts'
import type { DamagedRange, MessageRange, ReadOutcome } from '../log/batches.ts'
import { endsOf } from '../log/positions.ts'
import { eachRun, normalized, runsOf, subtract } from '../settlement/runs.ts'
import type { Turn } from './turns.ts'

/** `read`: what was found of these ranges. They lie before the end of the log. */
export async function holesIn(
  { rows, subscription }: Turn,
  ranges: readonly MessageRange[],
  read: ReadOutcome,
): Promise<DamagedRange[]> {
  const missing = ranges.map((range, place) => missingOf(range, place, read))
  if (missing.every(({ length }) => length === 0)) return []
  const { topic, topicId } = subscription
  const ends = await endsOf(rows, [topicId])
  const floors = new Map(ends.map(({ partition, firstOffset }) => [partition, firstOffset]))
  const holes: DamagedRange[] = []
  for (const [range, { partition }] of ranges.entries()) {
    const kept = subtract(missing[range]!, [0, floors.get(partition) ?? Number.POSITIVE_INFINITY])
    eachRun(kept, (from, to) => {
      const error = new PosthornError('POSTHORN_BATCH_CORRUPT', { topic, partition, from, to: to - 1 })
      holes.push({ range, from, to, error })
    })
  }
  return holes
}

/** The parts of a range that were neither read nor found to be damaged. */
function missingOf({ from, to }: MessageRange, place: number, { messages, damaged }: ReadOutcome): readonly number[] {
  const there = messages[place]!
  if (there.length === to - from) return []
  const unread = damaged.filter(({ range }) => range === place).flatMap((part) => [part.from, part.to])
  return subtract([from, to], normalized([...unread, ...runsOf(there.map(({ offset }) => offset))]))
}
