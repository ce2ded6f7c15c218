/**
 * A downstream that is away for twenty minutes, on a virtual clock: what it costs the messages that wait for it, and
 * what it is asked meanwhile.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBreaker } from '../../src/consumer/breaker/settings.ts'
import { batched, MESSAGES, MINUTE_MS, simulate, single } from './breaker-outage-rig.ts'

const OUTAGE_MS = 20 * MINUTE_MS
const outage = { awayAfterMs: 200, awayMs: OUTAGE_MS }
const breaker = readBreaker(true)!

describe('twenty minutes without the downstream', () => {
  for (const [kind, handlersOf, changes] of [
    ['single', single, {}],
    ['batch', batched, { batch: { size: 10, waitMs: 20 } }],
  ] as const) {
    for (const seed of [1, 2, 3]) {
      test(`cost no message an attempt (${kind} handlers, seed ${seed})`, async () => {
        const run = await simulate({ ...outage, seed, breaker, handlersOf, changes })
        assert.ok(run.handledBefore > 0 && run.handledBefore < MESSAGES, 'it went away in the middle')
        assert.equal(run.source.handled.size, MESSAGES)
        assert.deepEqual(run.source.dead, [])
        assert.deepEqual([...run.source.attempts], [], 'every message was handled at its first attempt')

        // At most what was running, and then a probe at each of 1, 2, 4, 8 and 16 s, and each 30 s, half of it off.
        const during = run.downstream.callsBetween(run.startMs, run.endMs)
        assert.ok(during <= 2 * 10 + 10 + OUTAGE_MS / 15_000, `${during} calls while it was away`)
        const [first, ...later] = run.downstream.runningAtStart.filter(({ atMs }) => atMs >= run.endMs)
        assert.equal(first?.running, 1)
        const peaks = later.slice(0, 15).map(({ running }) => running)
        assert.ok(Math.max(...peaks.slice(0, 2)) <= 2, `it was begun with little: ${peaks}`)
        assert.equal(Math.max(...later.map(({ running }) => running)), 10)
        assert.equal(run.source.breakerReports.at(-1), undefined)
        assert.equal(run.openings, 1)
        assert.equal(run.logger.matching('info', 'A breaker closed').length, 1)
      })
    }
  }

  for (const firstAttempt of [2, 3]) {
    for (const [kind, handlersOf, changes] of [
      ['single', single, {}],
      ['batch', batched, { batch: { size: 10, waitMs: 20 } }],
    ] as const) {
      test(`cost no attempt when each of three waits for attempt ${firstAttempt} (${kind} handlers)`, async () => {
        const run = await simulate({ ...outage, seed: 1, breaker, handlersOf, changes, firstAttempt })
        assert.equal(run.source.handled.size, MESSAGES)
        assert.deepEqual(run.source.dead, [])
        assert.deepEqual([...run.source.attempts], [])
        assert.equal(run.openings, 1)
        // Five seconds at full pace, of 15 ms a call on average at the fastest, and then ten probes instead of one.
        const during = run.downstream.callsBetween(run.startMs, run.endMs)
        assert.ok(during <= 10 * (5_000 / 15) + 10 * (10 + OUTAGE_MS / 15_000), `${during} calls while it was away`)
      })
    }
  }

  test('without a breaker cost them everything', async () => {
    const run = await simulate({ ...outage, seed: 1, breaker: undefined })
    assert.ok(run.source.dead.length > MESSAGES / 2)
  })
})
