/** The smallest value that at least `share` of all values do not exceed. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

/** The middle value; the upper one of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

/** Figures by name: what one run of a scenario measured. */
export type Figures = Readonly<Record<string, number>>

/** For each figure the median of the runs; of memory the maximum, because that is what has to fit. */
export function summarise(runs: readonly Figures[]): Figures {
  const names = Object.keys(runs[0] ?? {})
  return Object.fromEntries(
    names.map((name) => {
      const values = runs.map((run) => run[name] ?? Number.NaN)
      return [name, name.startsWith('rss_') ? Math.max(...values) : median(values)]
    }),
  )
}
