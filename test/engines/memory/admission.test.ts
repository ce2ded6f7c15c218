import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RateLimit } from '../../../src/engine.ts'
import type { LeaseHolder } from '../../../src/engines/memory/delivery/leases.ts'
import { Session } from '../../../src/engines/memory/delivery/sessions.ts'
import { Admissions } from '../../../src/engines/memory/limits/admission.ts'

const BEGAN_AT_MS = 1_800_000_000_000

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
  return { session: new Session(name, 1_000, 0), leasesLost() {}, cancelled() {}, crowded() {} }
})
