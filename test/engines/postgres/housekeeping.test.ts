import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Housekeeping } from '../../../src/engines/postgres/housekeeping.ts'
import { silentLogger } from '../../../src/environment/index.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'

const EVERY_MS = 1_000
const HOUR_MS = 3_600_000

/** Its wall clock can be set. */
class SetClock extends VirtualClock {
  aheadMs = 0

  override now(): number {
    return super.now() + this.aheadMs
  }
}

test('chores are done as often as before when the wall clock is set back', async () => {
  const clock = new SetClock()
  let runs = 0
  const run = async () => void runs++
  const housekeeping = new Housekeeping(clock, silentLogger, [{ name: 'a chore', everyMs: EVERY_MS, run }])
  housekeeping.start()
  await clock.advance(2 * EVERY_MS)
  clock.aheadMs = -HOUR_MS
  await clock.advance(3 * EVERY_MS)
  assert.equal(runs, 5)
  await housekeeping.stop()
})
