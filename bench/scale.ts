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
  /** Keys of the large ordered backlog, one message each. */
  readonly keys: number
  /** Messages of the ordered backlog of few keys. */
  readonly fewKeysBacklog: number
  /** Messages of the burst that is worked off at 500/s. */
  readonly burst: number
  readonly transactionalMessages: number
  readonly steppedMessages: number
  /** What goes through the system under a held transaction before anything is measured. */
  readonly churnMessages: number
  /** What goes through a store whose size is measured. */
  readonly storageMessages: number
  readonly outboxTransactions: number
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
  keys: 1_000_000,
  fewKeysBacklog: 100_000,
  burst: 50_000,
  transactionalMessages: 50_000,
  steppedMessages: 50_000,
  churnMessages: 1_000_000,
  storageMessages: 10_000_000,
  outboxTransactions: 5_000,
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
  burst: 5_000,
  transactionalMessages: 20_000,
  steppedMessages: 20_000,
  churnMessages: 300_000,
  storageMessages: 500_000,
  outboxTransactions: 2_000,
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
  keys: 300,
  fewKeysBacklog: 300,
  burst: 100,
  transactionalMessages: 100,
  steppedMessages: 100,
  churnMessages: 300,
  storageMessages: 300,
  outboxTransactions: 20,
}

const scales = { full, quick, tiny }

// A backlog in memory is bounded by the heap of one process.
const MEMORY_BACKLOG_MAX = 500_000

/** A commit for each message, over the network: fewer say as much. */
function slowWork({ name, transactionalMessages, steppedMessages }: Scale): Partial<Scale> {
  if (name === 'tiny') return {}
  return { transactionalMessages: transactionalMessages / 10, steppedMessages: steppedMessages / 4 }
}

export function scaleFor(name: Scale['name'], engine: string): Scale {
  const scale = scales[name]
  if (engine === 'postgres') return { ...scale, ...slowWork(scale) }
  if (engine !== 'memory') return scale
  const { deepBacklog, keys } = scale
  return {
    ...scale,
    deepBacklog: Math.min(deepBacklog, MEMORY_BACKLOG_MAX),
    keys: Math.min(keys, MEMORY_BACKLOG_MAX),
  }
}
