import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RateLimit } from '../../../src/engine.ts'
import { Admissions } from '../../../src/engines/memory/admission.ts'
import type { LeaseHolder } from '../../../src/engines/memory/leases.ts'
import { Session } from '../../../src/engines/memory/sessions.ts'

const BEGAN_AT_MS = 1_800_000_000_000

const rate = fc
  .record({
    limit: fc.integer({ min: 1, max: 30 }),
    perMs: fc.constantFrom(100, 333, 1_000, 7_000),
    burst: fc.integer({ min: 1, max: 30 }),
    graceMs: fc.integer({ min: 5, max: 100 }),
  })
  .map(({ burst, ...rest }): RateLimit => {
    return { kind: 'rate', name: 'rate', ...rest, burst: Math.min(burst, rest.limit) }
  })

/** A pause, a number of starts that are asked for, and how late they are, as a part of the grace. */
const ask = fc.record({
  pauseMs: fc.nat(400),
  starts: fc.integer({ min: 1, max: 40 }),
  lateness: fc.double({ min: 0, max: 1, noNaN: true }),
})

test('whoever asks, and however late they start within the grace, no stretch of time holds more starts than the limit', () => {
  fc.assert(
    fc.property(rate, fc.array(ask, { minLength: 1, maxLength: 60 }), (limit, asks) => {
      const admissions = new Admissions()
      const startedAtMs: number[] = []
      let nowMs = BEGAN_AT_MS
      for (const [place, { pauseMs, starts, lateness }] of asks.entries()) {
        nowMs += pauseMs
        const source = sources[place % sources.length]!
        const { startsInMs } = admissions.admit(source, [limit], { buckets: [''], starts }, nowMs)
        for (const startInMs of startsInMs) startedAtMs.push(nowMs + startInMs + lateness * limit.graceMs)
      }
      assertWithin(limit, startedAtMs)
    }),
  )
})

test('who asks when told to gets as many starts as the limit has room for', () => {
  const limit: RateLimit = { kind: 'rate', name: 'rate', limit: 50, perMs: 1_000, burst: 1, graceMs: 20 }
  const admissions = new Admissions()
  let [nowMs, started] = [BEGAN_AT_MS, 0]
  while (nowMs < BEGAN_AT_MS + 60_000) {
    const { startsInMs, againInMs } = admissions.admit(sources[0]!, [limit], { buckets: [''], starts: 1_000 }, nowMs)
    started += startsInMs.length
    nowMs += againInMs
  }
  assert.ok(started > 60 * 48, `${started} starts in a minute`)
})

test('a clock that goes back holds nobody up for longer than the limit does', () => {
  const limit: RateLimit = { kind: 'rate', name: 'rate', limit: 1, perMs: 1_000, burst: 1, graceMs: 20 }
  const admissions = new Admissions()
  const demand = { buckets: [''], starts: 1 }
  assert.equal(admissions.admit(sources[0]!, [limit], demand, BEGAN_AT_MS).startsInMs.length, 1)
  const { againInMs } = admissions.admit(sources[0]!, [limit], demand, BEGAN_AT_MS - 3_600_000)
  assert.ok(againInMs <= limit.perMs + limit.graceMs + 100)
})

const sources = ['one', 'other'].map((name): LeaseHolder => {
  return { session: new Session(name, 1_000, 0), leasesLost() {}, cancelled() {} }
})

function assertWithin({ limit, perMs }: RateLimit, startedAtMs: readonly number[]): void {
  const rising = startedAtMs.toSorted((one, other) => one - other)
  for (const [place, firstMs] of rising.entries()) {
    const beyond = rising[place + limit]
    if (beyond !== undefined) assert.ok(beyond - firstMs >= perMs, `${limit + 1} starts within ${beyond - firstMs} ms`)
  }
}
