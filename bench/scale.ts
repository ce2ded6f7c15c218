/** How much of everything is measured. */
export interface Scale {
  readonly name: 'full' | 'quick' | 'tiny'
  /** How often each scenario is run; the median counts. */
  readonly runs: number
  readonly syncs: number
  readonly ceilingMessages: number
  readonly oneByOneMessages: number
  readonly inFlightMessages: number
  readonly bulkMessages: number
  readonly loopSeconds: number
  readonly backlog: number
  readonly smallBacklog: number
  readonly smallBacklogRuns: number
  readonly deepBacklog: number
  readonly slowMessages: number
  readonly fanOutMessages: number
  readonly liveSeconds: number
}

const full: Scale = {
  name: 'full',
  runs: 3,
  syncs: 1_000,
  ceilingMessages: 500_000,
  oneByOneMessages: 2_000,
  inFlightMessages: 400_000,
  bulkMessages: 500_000,
  loopSeconds: 5,
  backlog: 500_000,
  smallBacklog: 10_000,
  smallBacklogRuns: 31,
  deepBacklog: 5_000_000,
  slowMessages: 25_000,
  fanOutMessages: 300_000,
  liveSeconds: 10,
}

const quick: Scale = {
  ...full,
  name: 'quick',
  syncs: 300,
  ceilingMessages: 150_000,
  oneByOneMessages: 500,
  inFlightMessages: 150_000,
  bulkMessages: 200_000,
  loopSeconds: 1,
  smallBacklogRuns: 21,
  deepBacklog: 1_000_000,
  slowMessages: 5_000,
  fanOutMessages: 100_000,
  liveSeconds: 3,
}

const tiny: Scale = {
  name: 'tiny',
  runs: 1,
  syncs: 5,
  ceilingMessages: 1_000,
  oneByOneMessages: 10,
  inFlightMessages: 300,
  bulkMessages: 300,
  loopSeconds: 0.1,
  backlog: 300,
  smallBacklog: 100,
  smallBacklogRuns: 2,
  deepBacklog: 500,
  slowMessages: 100,
  fanOutMessages: 100,
  liveSeconds: 0.1,
}

const scales = { full, quick, tiny }

// A backlog in memory is bounded by the heap of one process.
const MEMORY_BACKLOG_MAX = 500_000

export function scaleFor(name: Scale['name'], engine: string): Scale {
  const scale = scales[name]
  if (engine !== 'memory') return scale
  return { ...scale, deepBacklog: Math.min(scale.deepBacklog, MEMORY_BACKLOG_MAX) }
}
