import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { PRIORITY_WEIGHTS, type Priority } from '../../src/engine.ts'
import { LaneShares } from '../../src/engines/lane-shares.ts'

const LANES: readonly Priority[] = ['high', 'normal', 'low']

test('of 21 picks in a row among all lanes 16 are high, 4 normal and 1 low', () => {
  const shares = new LaneShares()
  const picks = Array.from({ length: 84 }, () => shares.pick(LANES))
  for (let from = 0; from < picks.length; from += 21) {
    assert.deepEqual(countsOf(picks.slice(from, from + 21)), [16, 4, 1])
  }
})

test('with room for one message at a time each lane gets the same as with room for many', () => {
  const [one, many] = [new LaneShares(), new LaneShares()]
  const waiting = new Map(LANES.map((lane) => [lane, 1_000]))
  const singles = Array.from({ length: 100 }, () => one.divide(waiting, 1)[0]!.lane)
  const shares = many.divide(waiting, 100)
  assert.deepEqual(
    LANES.map((lane) => shares.find((share) => share.lane === lane)!.room),
    countsOf(singles),
  )
})

test('whatever came before, all lanes get their shares from the moment on when all have messages', () => {
  fc.assert(
    fc.property(fc.array(fc.subarray([...LANES], { minLength: 1 }), { maxLength: 300 }), (history) => {
      const shares = new LaneShares()
      for (const lanes of history) shares.pick(lanes)
      const counts = countsOf(Array.from({ length: 105 }, () => shares.pick(LANES)))
      for (const [place, expected] of [80, 20, 5].entries()) {
        assert.ok(Math.abs(counts[place]! - expected) <= (expected === 80 ? 20 : 4), `${counts}`)
      }
    }),
  )
})

test('messages that come one by one are not kept waiting for what others got meanwhile', () => {
  const shares = new LaneShares()
  for (let round = 0; round < 1_000; round++) {
    assert.equal(shares.pick(LANES), 'high')
    for (let pick = 0; pick < 3; pick++) shares.pick(['normal', 'low'])
  }
  const [high] = countsOf(Array.from({ length: 21 }, () => shares.pick(LANES)))
  assert.ok(high === 16 || high === 17, `${high}`)
})

test('a pull is never given more than its room, and all of it while there are enough messages', () => {
  const amount = fc.nat(60)
  const pull = fc.record({ high: amount, normal: amount, low: amount, room: fc.integer({ min: 1, max: 100 }) })
  fc.assert(
    fc.property(fc.array(pull, { maxLength: 50 }), (pulls) => {
      const shares = new LaneShares()
      for (const { room, ...amounts } of pulls) {
        const waiting = new Map(LANES.map((lane) => [lane, amounts[lane]]))
        const given = shares.divide(waiting, room)
        const total = LANES.reduce((sum, lane) => sum + amounts[lane], 0)
        assert.equal(
          given.reduce((sum, share) => sum + share.room, 0),
          Math.min(room, total),
        )
        for (const share of given) assert.ok(share.room > 0 && share.room <= amounts[share.lane])
      }
    }),
  )
})

test('the most urgent lane comes first', () => {
  const waiting = new Map(Object.keys(PRIORITY_WEIGHTS).map((lane) => [lane as Priority, 30]))
  assert.deepEqual(
    new LaneShares().divide(waiting, 90).map(({ lane }) => lane),
    LANES,
  )
})

function countsOf(picks: readonly Priority[]): number[] {
  return LANES.map((lane) => picks.filter((pick) => pick === lane).length)
}
