import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS } from './harness.ts'
import { LimitKeeper } from './limit-keeper.ts'
import { inFlight, rate, recorder, startLimited } from './limited-rig.ts'

/** The most that started within one stretch of this length. */
function densest(timesMs: readonly number[], perMs: number): number {
  return Math.max(
    0,
    ...timesMs.map((fromMs) => timesMs.filter((atMs) => atMs >= fromMs && atMs < fromMs + perMs).length),
  )
}

describe('a rate limit', () => {
  test('is never passed in any stretch of its time, and nearly used up', async () => {
    const clock = new VirtualClock(START_MS)
    const { starts, handle } = recorder(clock)
    const limits = [rate(50)]
    const { source, consumer } = await startLimited(
      limits,
      { handle },
      {},
      { clock, keeper: new LimitKeeper(clock, limits) },
    )
    source.offer(grantOf(offsets(0, 200)))
    await clock.advance(3_000)
    const times = starts.map(({ atMs }) => atMs)
    assert.ok(densest(times, 1_000) <= 50)
    assert.ok(times.length >= 130, `${times.length} in 3 s`)
    assert.deepEqual(
      starts.map(({ offset }) => offset),
      offsets(0, starts.length),
    )
    await consumer.close()
  })

  test('holds over several consumers, with bursts, whatever their handlers take', async () => {
    const cases = fc.record({
      limit: fc.integer({ min: 2, max: 40 }),
      burst: fc.integer({ min: 1, max: 20 }),
      durations: fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 1, maxLength: 5 }),
    })
    await fc.assert(
      fc.asyncProperty(cases, async ({ limit, burst, durations }) => {
        const clock = new VirtualClock(START_MS)
        const limits = [rate(limit, { burst: Math.min(burst, limit) })]
        const shared = { clock, keeper: new LimitKeeper(clock, limits) }
        const times: number[] = []
        const handle = async () => {
          const durationMs = durations[times.push(clock.now()) % durations.length]!
          await new Promise<void>((resolve) => void clock.setTimer(durationMs, resolve))
        }
        const rigs = [
          await startLimited(limits, { handle }, {}, shared),
          await startLimited(limits, { handle }, {}, shared),
        ]
        for (const [position, { source }] of rigs.entries())
          source.offer(grantOf(offsets(position * 100, position * 100 + 60)))
        await clock.advance(2_500)
        assert.ok(densest(times, 1_000) <= limit)
        assert.ok(times.length > 0)
        for (const { consumer } of rigs) {
          const closed = consumer.close()
          await clock.advance(1_000)
          await closed
        }
      }),
      { numRuns: 20 },
    )
  })

  test('nothing starts without permission, nor with one that came too late', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startLimited([rate(10)], { handle: handler.handle })
    let answer: (admissions: { startsInMs: number[]; againInMs: number }[]) => void = () => {}
    source.answerAdmit = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    source.offer(grantOf([0]))
    await settleDown()
    assert.deepEqual(source.admissions.at(-1)?.demands, [{ buckets: [''], starts: 1 }])
    assert.deepEqual(handler.started, [])
    await clock.advance(21)
    answer([{ startsInMs: [0], againInMs: 0 }])
    await settleDown()
    assert.deepEqual(handler.started, [], 'more than the grace after the call')
    assert.equal(source.admissions.length, 2)
    await clock.advance(5)
    answer([{ startsInMs: [10], againInMs: 0 }])
    await clock.advance(4)
    assert.deepEqual(handler.started, [])
    await clock.advance(1)
    assert.deepEqual(handler.started, [0])
    handler.of(0).resolve()
    await consumer.close()
  })

  test('is asked about again when the engine said so', async () => {
    const { source, consumer, clock } = await startLimited([rate(10)], { handle: () => {} })
    source.answerAdmit = async (demands) => demands.map(() => ({ startsInMs: [], againInMs: 250 }))
    source.offer(grantOf([0]))
    await settleDown()
    assert.equal(source.admissions.length, 1)
    await clock.advance(249)
    assert.equal(source.admissions.length, 1)
    await clock.advance(1)
    await settleDown()
    assert.equal(source.admissions.length, 2)
    await consumer.close()
  })

  test('takes no permissions for handlers that are busy', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startLimited([rate(10)], { handle: handler.handle }, { concurrency: 1 })
    source.offer(grantOf(offsets(0, 5)))
    await clock.advance(3_000)
    assert.deepEqual(handler.started, [0])
    const asked = source.admissions.flatMap(({ demands }) => demands)
    assert.equal(
      asked.reduce((sum, { starts }) => sum + starts, 0),
      1,
    )
    const closed = consumer.close()
    handler.of(0).resolve()
    await closed
  })
})

describe('a limit of messages in flight', () => {
  test('is never passed, and each place is left when its message has ended', async () => {
    const handler = new HeldHandler()
    const { source, consumer, keeper } = await startLimited([inFlight(2)], { handle: handler.handle })
    source.offer(grantOf(offsets(0, 6)))
    for (const offset of [0, 2, 4]) {
      await settleDown()
      assert.deepEqual(handler.started, offsets(0, offset + 2))
      assert.equal(keeper.inFlight(''), 2)
      handler.of(offset).resolve()
      handler.of(offset + 1).reject(new Error('no'))
    }
    await settleDown()
    assert.equal(keeper.inFlight(''), 0)
    await consumer.close()
  })

  test('frees the places of messages that timed out, were cancelled, or whose lease was lost', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock, keeper } = await startLimited(
      [inFlight(3)],
      { handle: handler.handle },
      { timeoutMs: 5_000 },
    )
    source.offer(grantOf([0]), grantOf([1]), grantOf([2]))
    await settleDown()
    source.cancel(0, 0)
    await settleDown()
    assert.equal(keeper.inFlight(''), 2)
    source.lose([1])
    await settleDown()
    assert.equal(keeper.inFlight(''), 1)
    await clock.advance(5_000)
    await settleDown()
    assert.equal(keeper.inFlight(''), 0)
    for (const call of handler.calls) call.resolve()
    await consumer.close()
  })

  test('a place that was not used in time is given back', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock, keeper } = await startLimited(
      [inFlight(10)],
      { handle: handler.handle },
      { concurrency: 1 },
    )
    source.answerAdmit = async (demands, finished) => {
      keeper.serve(source)
      const admissions = await source.answerAdmit([{ buckets: [''], starts: 3 }], finished)
      return demands.map(() => admissions[0]!)
    }
    source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    assert.deepEqual(handler.started, [0])
    assert.equal(keeper.inFlight(''), 3)
    await clock.advance(101)
    await settleDown()
    assert.equal(keeper.inFlight(''), 1)
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    const closed = consumer.close()
    handler.of(1).resolve()
    await closed
  })

  test('what a failed call should have told is told with the next one', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock, keeper, logger } = await startLimited([inFlight(1)], { handle: handler.handle })
    source.offer(grantOf([0, 1]))
    await settleDown()
    source.answerAdmit = () => Promise.reject(new Error('busy'))
    handler.of(0).resolve()
    await settleDown()
    keeper.serve(source)
    await clock.advance(100)
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    assert.equal(keeper.inFlight(''), 1)
    assert.equal(logger.matching('error', 'Asking which messages may start failed').length, 1)
    handler.of(1).resolve()
    await consumer.close()
  })
})
