/**
 * The arithmetic of settled offsets. A grant's messages have rising offsets, not always without gaps; each has a mark
 * at the same index. What is acknowledged and not sent yet is turned into half-open ranges `[from, to, from, to, ...]`
 * that cover these offsets, nothing between them that is not there, and as few as possible.
 */

interface Offset {
  readonly offset: number
}

/** A message that has not finished: what a new array is filled with. */
export const OPEN = 0
export const ACKED = 1
/** Handed over with a settlement, or about to be by other means than a range. */
export const SENT = 2

/** Takes what is marked ACKED from index `first` up to and including `last`, and marks it SENT. */
export function takeRanges(messages: readonly Offset[], marks: Uint8Array, first: number, last: number): number[] {
  const ranges: number[] = []
  for (let index = first; index <= last; index++) {
    if (marks[index] !== ACKED) continue
    marks[index] = SENT
    extend(ranges, messages[index]!.offset)
  }
  return ranges
}

function extend(ranges: number[], offset: number): void {
  const end = ranges.length - 1
  if (ranges[end] === offset) ranges[end] = offset + 1
  else ranges.push(offset, offset + 1)
}

/** The one range over all messages when there is no gap between their offsets; otherwise undefined. */
export function wholeRange(messages: readonly Offset[]): [number, number] | undefined {
  const from = messages[0]!.offset
  const to = messages.at(-1)!.offset + 1
  return to - from === messages.length ? [from, to] : undefined
}

/** Undoes `takeRanges`: marks the offsets within `ranges` ACKED again, and returns the outermost of their indexes. */
export function restoreRanges(
  messages: readonly Offset[],
  marks: Uint8Array,
  ranges: readonly number[],
): { first: number; last: number } {
  let first = messages.length
  let last = -1
  let range = 0
  for (let index = 0; index < messages.length && range < ranges.length; index++) {
    const { offset } = messages[index]!
    while (range < ranges.length && offset >= ranges[range + 1]!) range += 2
    if (range === ranges.length || offset < ranges[range]!) continue
    marks[index] = ACKED
    if (first > index) first = index
    last = index
  }
  return { first, last }
}
