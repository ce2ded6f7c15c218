import type { Scenario } from '../bench.ts'
import { ceiling } from './ceiling.ts'
import { drain, drain10k, drainDeep, drainSlowHandlers } from './drain.ts'
import { steps, transactional } from './effects.ts'
import { rateLimit } from './flow.ts'
import { heldTransaction } from './held-transaction.ts'
import { fanOut, live } from './live.ts'
import { orderedDrain, orderedDrainFewKeys, orderedDrainManyKeys } from './ordered.ts'
import { outbox } from './outbox.ts'
import { publishBulk, publishInFlight, publishInFlight100, publishLoopDelay, publishOne } from './publish.ts'
import { storage } from './storage.ts'

export { ceiling }

/** All that is measured besides the ceiling, in the order of the report. */
export const scenarios: readonly Scenario[] = [
  publishOne,
  publishInFlight100,
  publishInFlight,
  publishBulk,
  publishLoopDelay,
  drain,
  drain10k,
  drainDeep,
  drainSlowHandlers,
  fanOut,
  live,
  heldTransaction,
  orderedDrain,
  orderedDrainFewKeys,
  orderedDrainManyKeys,
  rateLimit,
  transactional,
  steps,
  outbox,
  storage,
]
