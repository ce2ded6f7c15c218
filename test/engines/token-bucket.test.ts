import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RateLimit } from '../../src/engine.ts'
import { askAgainInMs, HORIZON_MS, TokenBucket, takeStarts } from '../../src/engines/token-bucket.ts'

const BEGAN_AT_MS = 1_800_000_000_000

type Setting = Omit<RateLimit, 'kind' | 'name'>

const settings = fc
  .record({
    limit: fc.integer({ min: 1, max: 30 }),
    perMs: fc.oneof(fc.constantFrom(1, 100, 333, 1_000, 7_000), fc.integer({ min: 1, max: 2_000 })),
    burst: fc.integer({ min: 1, max: 30 }),
    graceMs: fc.integer({ min: 0, max: 100 }),
  })
  .map(({ burst, ...rest }): Setting => ({ ...rest, burst: Math.min(burst, rest.limit) }))

const lateness = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }))

/** A pause, a number of starts that are asked for, and how late each is, as a part of the grace. */
const ask = fc.record({
  pauseMs: fc.oneof(fc.constant(0), fc.nat(400)),
  starts: fc.integer({ min: 1, max: 40 }),
  lateness: fc.array(lateness, { minLength: 1, maxLength: 5 }),
})

test('whoever waits for a bucket of his own reserves little of a shared one, and the others go first', () => {
  const perSecond = (limit: number) =>
    new TokenBucket({ limit, perMs: 1_000, burst: 1, graceMs: 20 }, undefined, BEGAN_AT_MS)
  const shared = perSecond(100)
  const crowd = takeStarts([shared, perSecond(20)], 10, BEGAN_AT_MS)
  const quiet = takeStarts([shared, perSecond(20)], 10, BEGAN_AT_MS)
  assert.deepEqual(crowd, [BEGAN_AT_MS])
  assert.equal(quiet.length, 1)
  assert.ok(quiet[0]! - BEGAN_AT_MS < 12, `${quiet[0]! - BEGAN_AT_MS} ms later`)
})

test('however late starts are within the grace, no stretch of time holds more of them than the limit', () => {
  fc.assert(
    fc.property(settings, fc.array(ask, { minLength: 1, maxLength: 60 }), (setting, asks) => {
      const startedAtMs: number[] = []
      let stored: number | undefined
      let nowMs = BEGAN_AT_MS
      for (const { pauseMs, starts, lateness } of asks) {
        nowMs += pauseMs
        const bucket = new TokenBucket(setting, stored, nowMs)
        for (const [place, startMs] of takeStarts([bucket], starts, nowMs).entries()) {
          startedAtMs.push(startMs + lateness[place % lateness.length]! * setting.graceMs)
        }
        stored = bucket.nextAtMs
      }
      assertWithin(setting, startedAtMs)
    }),
    { numRuns: 500 },
  )
})

test('a full bucket gives its burst at once, and then one message an interval up to the horizon', () => {
  const setting = { limit: 103, perMs: 1_000, burst: 4, graceMs: 0 }
  const starts = takeStarts([new TokenBucket(setting, undefined, BEGAN_AT_MS)], 1_000, BEGAN_AT_MS)
  assert.deepEqual(
    starts.map((startMs) => startMs - BEGAN_AT_MS),
    [0, 0, 0, 0, 10, 20, 30, 40, 50, 60, 70, 80, 90, HORIZON_MS],
  )
})

test('of several buckets all are taken from when all of them have something', () => {
  const slow = new TokenBucket({ limit: 1, perMs: 6, burst: 1, graceMs: 0 }, undefined, BEGAN_AT_MS)
  const quick = new TokenBucket({ limit: 1, perMs: 5, burst: 1, graceMs: 0 }, BEGAN_AT_MS + 3, BEGAN_AT_MS)
  const starts = takeStarts([slow, quick], 9, BEGAN_AT_MS)
  assert.deepEqual(
    starts.map((startMs) => startMs - BEGAN_AT_MS),
    [3, 9, 15],
  )
  assert.deepEqual([slow.earliestMs - BEGAN_AT_MS, quick.earliestMs - BEGAN_AT_MS], [21, 20])
})

test('is to be asked again well before the next start, so that a late question costs no pace', () => {
  const slow = new TokenBucket({ limit: 1, perMs: 1_000, burst: 1, graceMs: 0 }, BEGAN_AT_MS + 1_000, BEGAN_AT_MS)
  const soon = new TokenBucket({ limit: 10, perMs: 1_000, burst: 1, graceMs: 0 }, BEGAN_AT_MS + 20, BEGAN_AT_MS)
  assert.equal(askAgainInMs([slow], BEGAN_AT_MS), 950)
  assert.equal(askAgainInMs([soon], BEGAN_AT_MS), 1)
  assert.equal(askAgainInMs([slow, soon], BEGAN_AT_MS), 990)
})

function assertWithin({ limit, perMs }: Setting, startedAtMs: readonly number[]): void {
  const rising = startedAtMs.toSorted((one, other) => one - other)
  for (const [place, firstMs] of rising.entries()) {
    const beyond = rising[place + limit]
    if (beyond !== undefined) assert.ok(beyond - firstMs >= perMs, `${limit + 1} starts within ${beyond - firstMs} ms`)
  }
}
