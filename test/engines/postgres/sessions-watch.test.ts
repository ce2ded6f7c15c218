/** Who is taken for dead, and when. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Life } from '../../../src/engines/postgres/consumers/life.ts'
import { Observer, type SessionRow } from '../../../src/engines/postgres/consumers/observer.ts'
import { Rounds } from '../../../src/engines/postgres/consumers/rounds.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'

const LEASE_MS = 3_000
const START_MS = 1_000_000

function session(beat: number, beatenAtMs = START_MS): SessionRow {
  return { sessionId: 'a', beat, beatenAtMs, leaseMs: LEASE_MS }
}

/** Looks at these times, counted from the first, and says whether the session was dead then. */
function look(observer: Observer, row: SessionRow, atMs: number, nowMs = START_MS + atMs): boolean {
  return observer.look([row], { sentAtMs: atMs, answeredAtMs: atMs, nowMs }).length > 0
}

describe('the observer of sessions', () => {
  test('finds one dead whose beat stands still for as long as its lease', () => {
    const observer = new Observer(true)
    const found = [0, 1_000, 2_000, 3_000].map((atMs) => look(observer, session(1), atMs))
    assert.deepEqual(found, [false, false, false, true])
  })

  test('finds none dead that beats, whatever clock it goes by', () => {
    const observer = new Observer(true)
    for (let beat = 0; beat < 20; beat++) assert.equal(look(observer, session(beat, 0), beat * 1_400), false)
  })

  test('counts little of the time in which it could not look', () => {
    const observer = new Observer(true)
    assert.equal(look(observer, session(1), 0), false)
    assert.equal(look(observer, session(1), 600_000), false)
    assert.equal(look(observer, session(2), 601_000), false)
    assert.equal(look(observer, session(2), 1_200_000), false)
    assert.equal(look(observer, session(2), 1_202_000), true)
  })

  test('counts from the answer, not from the question, how long it has known a beat', () => {
    const observer = new Observer(true)
    const row = session(1)
    assert.deepEqual(observer.look([row], { sentAtMs: 0, answeredAtMs: 2_000, nowMs: START_MS }), [])
    assert.equal(look(observer, row, 3_000), false)
    assert.equal(look(observer, row, 4_000), false)
    assert.equal(look(observer, row, 5_000), true)
  })

  test('believes of what was before its time only a part, because clocks differ', () => {
    const observer = new Observer(true)
    assert.equal(look(observer, session(1, 0), 0), false)
    assert.equal(look(observer, session(1, 0), 1_000), false)
    assert.equal(look(observer, session(1, 0), 1_500), true)
  })

  test('gives no credit for a renewal that is still to come', () => {
    const observer = new Observer(true)
    const found = [0, 1_000, 2_000, 3_000].map((atMs) => look(observer, session(1, START_MS * 2), atMs))
    assert.deepEqual(found, [false, false, false, true])
  })

  test('believes all of it where time is held', () => {
    assert.equal(look(new Observer(false), session(1, START_MS - LEASE_MS), 0), true)
    assert.equal(look(new Observer(false), session(1, START_MS - LEASE_MS + 1), 0), false)
  })

  test('forgets one that has gone', () => {
    const observer = new Observer(true)
    look(observer, session(1), 0)
    observer.look([], { sentAtMs: 1_000, answeredAtMs: 1_000, nowMs: START_MS })
    assert.equal(look(observer, session(1, START_MS + 2_000), 2_000), false)
    assert.equal(look(observer, session(1), 3_000), false)
  })
})

describe('the signs of life of an event loop', () => {
  test('are missed once it is silent for longer than its handlers may run', async () => {
    const clock = new VirtualClock()
    const life = new Life(clock)
    life.trust(5_000)
    life.trust(1_000)
    life.beat()
    await clock.advance(5_500)
    assert.equal(life.noteSilence(), 0)
    await clock.advance(1)
    assert.equal(life.noteSilence(), 5_501)
    assert.equal(life.whyLost(), 'the event loop did not turn for 5501 ms')
    life.beat()
    assert.equal(life.noteSilence(), 0)
  })

  test('let the leases end by the clock that is ahead', async () => {
    const clock = new VirtualClock()
    let wallMs = clock.now()
    let elapsedMs = 0
    const life = new Life({ ...clock, setTimer: clock.setTimer, now: () => wallMs, elapsedMs: () => elapsedMs })
    const untilMs = wallMs + LEASE_MS
    life.extend({ atMs: wallMs, elapsedMs }, LEASE_MS)
    assert.equal(life.leasedUntilMs, untilMs)
    wallMs -= 1_000_000
    elapsedMs += 1_000
    assert.equal(life.leasedUntilMs - wallMs, LEASE_MS - 1_000)
    wallMs += 2_000_000
    assert.equal(life.leasedUntilMs, untilMs)
  })
})

describe('rounds', () => {
  test('never overlap, and those that are asked for meanwhile become one', async () => {
    let running = 0
    let rounds = 0
    const clock = new VirtualClock()
    const repeated = new Rounds(clock, async () => {
      running++
      rounds++
      await undefined
      assert.equal(running--, 1)
      return 1_000
    })
    await Promise.all([repeated.now(), repeated.now(), repeated.now()])
    assert.equal(rounds, 2)
    await clock.advance(3_000)
    assert.equal(rounds, 5)
    await repeated.stop()
    await repeated.now()
    await clock.advance(3_000)
    assert.equal(rounds, 5)
  })

  test('are found by a clock that jumps, though each takes its time', async () => {
    let rounds = 0
    let finish = () => {}
    const clock = new VirtualClock()
    const repeated = new Rounds(clock, async () => {
      rounds++
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      return 1_000
    })
    repeated.start(1_000)
    await clock.advance(10_000)
    assert.equal(rounds, 1)
    finish()
    await clock.advance(0)
    assert.equal(rounds, 2)
    finish()
    await repeated.idle()
    await clock.advance(1_000)
    assert.equal(rounds, 3)
    finish()
    await repeated.stop()
  })
})
