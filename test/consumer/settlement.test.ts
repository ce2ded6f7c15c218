import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Outage } from '../../src/consumer/outage.ts'
import { GrantLedger } from '../../src/consumer/settlement/grant-ledger.ts'
import { Settler } from '../../src/consumer/settlement/settler.ts'
import { silentLogger } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { FakeSource, grantOf, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, startRig } from './harness.ts'

describe('settlements', () => {
  test('of a whole grant are one range', async () => {
    const { source, consumer } = await startRig({ handle: async () => {} })
    source.offer(grantOf(offsets(100, 600)))
    await settleDown()
    assert.deepEqual(source.settlements, [[{ lease: 100, acked: [100, 600], exceptions: [] }]])
    await consumer.close()
  })

  test('of what finished so far go out while the rest runs', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    source.offer(grantOf([3, 4, 5, 9]))
    await settleDown()
    handler.of(3).resolve()
    handler.of(5).resolve()
    await settleDown()
    handler.of(4).resolve()
    handler.of(9).resolve()
    await settleDown()
    const sent = source.settlements.flat().map(({ acked }) => acked)
    assert.deepEqual(sent, [
      [3, 4, 5, 6],
      [4, 5, 9, 10],
    ])
    await consumer.close()
  })

  test('collect while a call is under way, and go out together once it has returned', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    const recording = Promise.withResolvers<[]>()
    source.settleAnswers.push(() => recording.promise)
    source.offer(grantOf([0, 1, 2]), grantOf([10]))
    await settleDown()
    for (const offset of [0, 1, 10]) {
      handler.of(offset).resolve()
      await settleDown()
    }
    handler.of(2).reject(new Error('no'))
    await settleDown()
    assert.equal(source.settlements.length, 1)
    recording.resolve([])
    await settleDown()
    assert.equal(source.settlements.length, 2)
    assert.deepEqual(
      source.settlements[1]?.map(({ lease, acked }) => [lease, acked]),
      [
        [0, [1, 2]],
        [10, [10, 11]],
      ],
    )
    assert.deepEqual(source.verdicts(), ['2 retry'])
    await consumer.close()
  })

  test('are kept and sent again while the engine fails, ever more slowly, with one error in the log', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock, logger } = await startRig({ handle: handler.handle })
    for (let failure = 0; failure < 8; failure++) {
      source.settleAnswers.push(() => Promise.reject(new Error('disk gone')))
    }
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    handler.of(0).resolve()
    handler.of(1).reject(new Error('no'))
    await settleDown()
    const calls: number[] = []
    for (const delayMs of [100, 200, 400, 800, 1_600, 3_200, 5_000]) {
      await clock.advance(delayMs - 1)
      await settleDown()
      calls.push(source.settlements.length)
      await clock.advance(1)
      await settleDown()
    }
    assert.deepEqual(calls, [1, 2, 3, 4, 5, 6, 7])
    handler.of(2).resolve()
    await clock.advance(5_000)
    await settleDown()
    const last = source.settlements.at(-1)
    assert.deepEqual(
      last?.map(({ acked, exceptions }) => [acked, exceptions.length]),
      [[[0, 1, 2, 3], 1]],
    )
    assert.equal(logger.matching('error', 'disk gone').length, 1)
    assert.equal(logger.matching('info', 'works again').length, 1)
    await consumer.close()
  })

  test('that cannot be recorded stop the fetching of more, until they are', async () => {
    const seen: unknown[] = []
    const { source, consumer, clock } = await startRig({ handle: (event) => void seen.push(event.data) })
    const down = () => Promise.reject(new Error('disk gone'))
    source.settleAnswers.push(down, down)
    source.offer(grantOf(offsets(0, 9_999)))
    await settleDown()
    source.offer(grantOf([9_999, 10_000]))
    await settleDown()
    const pulls = source.pulls.length
    source.offer(grantOf([20_000]))
    await settleDown()
    assert.equal(source.pulls.length, pulls, 'nothing was fetched meanwhile')
    assert.equal(seen.at(-1), 10_000)
    await clock.advance(100)
    await clock.advance(200)
    await settleDown()
    assert.equal(source.acked().at(-1), 20_000)
    await consumer.close()
  })

  test('that will never be recorded because their lease is lost do not count', async () => {
    const { source, consumer } = await startRig({ handle: () => {} })
    source.settleAnswers.push(() => Promise.reject(new Error('disk gone')))
    source.offer(grantOf(offsets(0, 9_999)))
    await settleDown()
    source.offer(grantOf([9_999, 10_000]))
    await settleDown()
    const pulls = source.pulls.length
    source.lose([0])
    await settleDown()
    assert.equal(source.pulls.length, pulls + 1)
    await consumer.close()
  })

  test('under way when their lease is lost are counted out once', async () => {
    const source = new FakeSource()
    const recording = Promise.withResolvers<[]>()
    source.settleAnswers.push(() => recording.promise)
    const outage = new Outage(silentLogger, 'Settling', {})
    const completed: GrantLedger[] = []
    const events = {
      onComplete: (ledger: GrantLedger) => completed.push(ledger),
      onFenced: () => {},
      onSettled: () => {},
    }
    const settler = new Settler(source, new VirtualClock(), outage, events)
    const ledger = new GrantLedger(grantOf([0]), 0)
    ledger.ack(0)
    settler.finished(ledger)
    await settleDown()
    settler.forget(ledger)
    recording.resolve([])
    await settler.flush()
    assert.equal(settler.waiting, 0)
    assert.deepEqual(completed, [])
  })
})

describe('fetching', () => {
  test('goes on after failures, ever more slowly, with one error in the log', async () => {
    const { source, consumer, clock, logger } = await startRig({ handle: () => {} })
    for (let failure = 0; failure < 9; failure++) source.pullAnswers.push(() => Promise.reject(new Error('no network')))
    source.offer(grantOf([0]))
    await settleDown()
    const pulls: number[] = []
    for (const delayMs of [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
      pulls.push(source.pulls.length)
      await clock.advance(delayMs)
      await settleDown()
    }
    assert.deepEqual(pulls, [2, 3, 4, 5, 6, 7, 8, 9])
    source.offer(grantOf([1]))
    await clock.advance(5_000)
    await settleDown()
    assert.deepEqual(source.acked(), [0, 1])
    assert.equal(logger.matching('error', 'no network').length, 1)
    await consumer.close()
  })

  test('does not spin on a source that answers with nothing', async () => {
    const { source, consumer, clock } = await startRig({ handle: () => {} })
    source.pullAnswers.push(
      async () => [],
      async () => [],
    )
    source.offer(grantOf([0]))
    await settleDown()
    assert.equal(source.pulls.length, 2)
    await clock.advance(100)
    await settleDown()
    assert.equal(source.pulls.length, 3)
    await consumer.close()
  })

  test('passes damage on to the log', async () => {
    const { source, consumer, logger } = await startRig({ handle: () => {} })
    source.options?.onDamage(Object.assign(new Error('flipped'), { code: 'POSTHORN_BATCH_CORRUPT' }))
    assert.equal(logger.matching('error', 'POSTHORN_BATCH_CORRUPT').length, 1)
    await consumer.close()
  })
})
