/** Limits where the event loop is busy with other things: every timer comes late. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readLimits } from '../../src/api/flow-options.ts'
import type { Timer } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, offsets } from './fake-source.ts'
import { START_MS } from './harness.ts'
import { LimitKeeper } from './limit-keeper.ts'
import { recorder, startLimited } from './limited-rig.ts'

class LateClock extends VirtualClock {
  readonly #lateMs: number

  constructor(lateMs: number) {
    super(START_MS)
    this.#lateMs = lateMs
  }

  override setTimer(delayMs: number, onTime: () => void): Timer {
    return super.setTimer(delayMs + this.#lateMs, onTime)
  }
}

async function startsIn(stretchMs: number, rateLimit: { limit: number; per: number }, lateMs: number) {
  const clock = new LateClock(lateMs)
  const { starts, handle } = recorder(clock)
  const limits = readLimits(rateLimit)
  const shared = { clock, keeper: new LimitKeeper(clock, limits) }
  const { source, consumer } = await startLimited(limits, { handle }, {}, shared)
  source.offer(grantOf(offsets(0, 1_000)))
  await clock.advance(stretchMs)
  await consumer.close()
  return starts.map(({ atMs }) => atMs)
}

for (const limit of [10, 50, 200]) {
  test(`${limit} a second are nearly used up by starts that are 45 ms late, and never passed`, async () => {
    const times = await startsIn(4_000, { limit, per: 1_000 }, 45)
    assert.ok(times.length >= 4 * limit * 0.9, `${times.length} in 4 s`)
    for (const fromMs of times) {
      assert.ok(times.filter((atMs) => atMs >= fromMs && atMs < fromMs + 1_000).length <= limit)
    }
  })
}

test('a limit of a tenth of a second bears starts that are 20 ms late', async () => {
  const times = await startsIn(4_000, { limit: 5, per: 100 }, 20)
  assert.ok(times.length >= 200 * 0.75, `${times.length} in 4 s`)
  for (const fromMs of times) {
    assert.ok(times.filter((atMs) => atMs >= fromMs && atMs < fromMs + 100).length <= 5)
  }
})
