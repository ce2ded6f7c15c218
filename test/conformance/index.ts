/**
 * The conformance suite: what `src/engine.ts` promises, checked on one engine. Call `conformance` in a test file that
 * runs under `node --test`. One file for each guarantee; each reads as a list of what an engine must do.
 */
import { describe } from 'node:test'
import { admin } from './admin.ts'
import { atLeastOnce } from './at-least-once.ts'
import { atomicAppend } from './atomic-append.ts'
import { breakers } from './breakers.ts'
import { cancel } from './cancel.ts'
import { crashIsolation } from './crash-isolation.ts'
import { damage } from './damage.ts'
import { deadLetters } from './dead-letters.ts'
import { deduplication } from './deduplication.ts'
import { delay } from './delay.ts'
import { durablePublish } from './durable-publish.ts'
import { effectsOnce } from './effects-once.ts'
import { fencing } from './fencing.ts'
import { flowLimits } from './flow-limits.ts'
import type { ConformanceHarness } from './harness.ts'
import { leases } from './leases.ts'
import { limits } from './limits.ts'
import { order } from './order.ts'
import { orderBlockedKeys } from './order-blocked-keys.ts'
import { orderChains } from './order-chains.ts'
import { orderEndToEnd } from './order-end-to-end.ts'
import { orderRecovery } from './order-recovery.ts'
import { pause } from './pause.ts'
import { priorities } from './priorities.ts'
import { purge } from './purge.ts'
import { replay } from './replay.ts'
import { retention } from './retention.ts'
import { setAsideLimit } from './set-aside-limit.ts'
import { subscriptions } from './subscriptions.ts'
import { type Guarantee, testOn } from './suite.ts'

export type { ConformanceHarness, UserDatabase } from './harness.ts'

const guarantees: Readonly<Record<string, Guarantee>> = {
  'durable publish': durablePublish,
  'at least once': atLeastOnce,
  leases,
  deduplication,
  'atomic append': atomicAppend,
  order,
  'order: chains': orderChains,
  'order: blocked keys': orderBlockedKeys,
  'order: recovery': orderRecovery,
  'order, end to end': orderEndToEnd,
  'set-aside limit': setAsideLimit,
  fencing,
  'crash isolation': crashIsolation,
  'effects once': effectsOnce,
  limits,
  'flow limits': flowLimits,
  breakers,
  priorities,
  cancel,
  subscriptions,
  delay,
  'dead letters': deadLetters,
  replay,
  pause,
  purge,
  retention,
  admin,
  damage,
}

// They mostly wait for their engine's disk and threads.
const TESTS_AT_ONCE = 4

/** Registers the whole suite under `name`. */
export function conformance(name: string, harness: ConformanceHarness): void {
  describe(`${name} conforms to the engine contract`, () => {
    for (const [title, guarantee] of Object.entries(guarantees)) {
      describe(title, { concurrency: TESTS_AT_ONCE }, () => guarantee(testOn(harness), harness))
    }
  })
}
