/** Half-open ranges of offsets, flat: [from, to, from, to, ...]. */

/** Ranges in any order as rising ones, none touching another. */
export function normalized(ranges: readonly number[]): number[] {
  const starts: number[] = []
  for (let place = 0; place + 1 < ranges.length; place += 2) if (ranges[place]! < ranges[place + 1]!) starts.push(place)
  starts.sort((one, other) => ranges[one]! - ranges[other]!)
  const merged: number[] = []
  for (const place of starts) {
    const [from, to] = [ranges[place]!, ranges[place + 1]!]
    const end = merged.at(-1)
    if (end !== undefined && from <= end) merged[merged.length - 1] = Math.max(end, to)
    else merged.push(from, to)
  }
  return merged
}

/** Offsets in any order as ranges. */
export function runsOf(offsets: readonly number[]): number[] {
  return normalized(offsets.flatMap((offset) => [offset, offset + 1]))
}

/** What is left of rising ranges without others. */
export function subtract(ranges: readonly number[], taken: readonly number[]): number[] {
  const rest: number[] = []
  let next = 0
  for (let place = 0; place < ranges.length; place += 2) {
    let from = ranges[place]!
    const to = ranges[place + 1]!
    while (next < taken.length && taken[next + 1]! <= from) next += 2
    for (let other = next; other < taken.length && taken[other]! < to; other += 2) {
      if (from < taken[other]!) rest.push(from, taken[other]!)
      from = Math.max(from, taken[other + 1]!)
    }
    if (from < to) rest.push(from, to)
  }
  return rest
}

/** Calls `see` with each range. */
export function eachRun(ranges: readonly number[], see: (from: number, to: number) => void): void {
  for (let place = 0; place < ranges.length; place += 2) see(ranges[place]!, ranges[place + 1]!)
}
