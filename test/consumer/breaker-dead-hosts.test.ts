/**
 * Messages for many hosts, a few of which are dead: what the breaker does to the messages for the others.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBreaker } from '../../src/consumer/breaker/settings.ts'
import { type CountingSource, MINUTE_MS, type Situation, simulate } from './breaker-outage-rig.ts'

const breaker = readBreaker(true)!
/** The default: for half an hour, with retries that come back in between. */
const retry = {
  attempts: 16,
  backoff: { type: 'exponential', delayMs: 1_000, maxMs: 600_000, jitter: 'full' },
} as const

/** Beyond the messages of the log: those that failed in another process. */
const OLD = 100_000

/** Spread evenly, without a pattern. */
const isDead = (share: number) => (offset: number) => offset >= OLD || ((offset * 7_919) % 10_007) / 10_007 < share

function due(retries: number): NonNullable<Situation['prepare']> {
  return (source: CountingSource, clock) => {
    for (let index = 0; index < retries; index++) source.retry(OLD + index, 8, clock.now())
  }
}

type Run = Awaited<ReturnType<typeof simulate>>

function assertUnharmed({ source, healthy }: Run): void {
  const handled = healthy.filter((offset) => source.handled.has(offset))
  assert.equal(handled.length, healthy.length)
  const counted = healthy.filter((offset) => source.attempts.has(offset) || source.dead.includes(offset))
  assert.deepEqual(counted, [], 'none of the others was charged with an attempt')
}

describe('messages of which a few always fail like an outage', () => {
  for (const percent of [2, 3, 5]) {
    for (const [kind, changes] of [
      ['three attempts', {}],
      ['the default retries', { retry }],
    ] as const) {
      test(`are handled at the pace of their number, with nothing opened (${percent} %, ${kind})`, async () => {
        const deadHost = isDead(percent / 100)
        const without = await simulate({ seed: 1, breaker: undefined, deadHost, changes })
        for (const seed of [1, 2, 3]) {
          const run = await simulate({ seed, breaker, deadHost, changes })
          assertUnharmed(run)
          assert.equal(run.openings, 0)
          assert.ok(run.drainedMs <= without.drainedMs * 1.05, `${run.drainedMs} ms instead of ${without.drainedMs}`)
        }
      })
    }
  }

  test('are given up after their attempts', async () => {
    const run = await simulate({ seed: 1, breaker, deadHost: isDead(0.03) })
    const dead = run.source.dead.length
    assert.ok(dead > 250, `${dead} dead letters`)
  })

  test('open nothing when a thousand of them are due before anything else', async () => {
    const run = await simulate({ seed: 1, breaker, deadHost: isDead(0.03), prepare: due(1_000), changes: { retry } })
    assertUnharmed(run)
    assert.equal(run.openings, 0)
  })

  test('hold the others up for seconds when more of them are due than five seconds can hold', async () => {
    const situation = { seed: 1, deadHost: isDead(0.03), prepare: due(3_000), changes: { retry } }
    const without = await simulate({ ...situation, breaker: undefined })
    const run = await simulate({ ...situation, breaker })
    assertUnharmed(run)
    assert.ok(run.openings <= 2, `${run.openings} openings`)
    assert.ok(run.drainedMs <= without.drainedMs + 15_000, `${run.drainedMs} ms instead of ${without.drainedMs}`)
  })
})

describe('twenty minutes without the network, for messages of which a few always fail', () => {
  for (const percent of [0, 2, 3, 5]) {
    for (const retries of [0, 1_000]) {
      test(`are over for the others soon after (${percent} %, ${retries} retries due)`, async () => {
        const deadHost = isDead(percent / 100)
        const outage = { awayAfterMs: 200, awayMs: 20 * MINUTE_MS }
        const run = await simulate({ ...outage, seed: 1, breaker, deadHost, prepare: due(retries), changes: { retry } })
        assertUnharmed(run)
        assert.ok(run.drainedMs <= MINUTE_MS, `${run.drainedMs} ms, of which up to 30 s until the first probe`)
      })
    }
  }
})
