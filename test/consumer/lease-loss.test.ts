import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { DeliveryContext } from '../../src/consumer/delivery/delivery.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { PosthornError } from '../../src/errors.ts'
import { grantOf, settleDown } from './fake-source.ts'
import { HeldHandler, startRig } from './harness.ts'

describe('a lost lease', () => {
  test('aborts the signals of its running handlers, and their results change nothing', async () => {
    const handler = new HeldHandler()
    const signals: AbortSignal[] = []
    const { source, consumer, logger } = await startRig({
      handle: (event, { signal }) => {
        signals.push(signal)
        return handler.handle(event)
      },
    })
    source.offer(grantOf([0, 1]), grantOf([10]))
    await settleDown()
    source.lose([0], 'the session ran out')
    const [first, second, other] = signals
    assert.ok(first?.reason instanceof PosthornError)
    assert.equal(first.reason.code, 'POSTHORN_LEASE_LOST')
    assert.equal(second?.aborted, true)
    assert.equal(other?.aborted, false)
    assert.equal(logger.matching('warn', 'billing').length, 1)
    handler.of(0).resolve()
    handler.of(1).reject(new Error('stopped'))
    handler.of(10).resolve()
    await settleDown()
    assert.deepEqual(source.acked(), [10])
    assert.deepEqual(source.exceptions(), [])
    await consumer.close()
  })

  test('is any that it has, when all are', async () => {
    const handler = new HeldHandler()
    const signals: AbortSignal[] = []
    const handle = (event: StoredEvent, { signal }: DeliveryContext) => {
      signals.push(signal)
      return handler.handle(event)
    }
    const { source, consumer } = await startRig({ handle }, { concurrency: 2 })
    source.offer(grantOf([0]), grantOf([10]), grantOf([20]))
    await settleDown()
    source.lose('all')
    assert.deepEqual(
      signals.map(({ aborted }) => aborted),
      [true, true],
    )
    for (const offset of [0, 10]) handler.of(offset).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 10], 'what was buffered is not begun')
    await consumer.close()
    assert.deepEqual(source.acked(), [])
  })

  test('takes along what was buffered under it', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 1 })
    source.offer(grantOf([0, 1, 2]), grantOf([10]))
    await settleDown()
    source.lose([0])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 10])
    handler.of(10).resolve()
    await consumer.close()
    assert.deepEqual(source.acked(), [10])
  })

  test('makes room for others in the buffer', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 1 })
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    assert.equal(source.pulls.length, 1)
    source.lose([0])
    await settleDown()
    assert.equal(source.pulls.length, 2)
    handler.of(0).resolve()
    await consumer.close()
  })

  test('takes along what finished and could not be recorded', async () => {
    const { source, consumer, clock } = await startRig({ handle: () => {} })
    source.settleAnswers.push(() => Promise.reject(new Error('disk gone')))
    source.offer(grantOf([0]), grantOf([10]))
    await settleDown()
    source.lose([0])
    await clock.advance(100)
    await settleDown()
    assert.deepEqual(source.settlements[1], [{ lease: 10, acked: [10, 11], exceptions: [] }])
    assert.equal(source.settlements.length, 2)
    await consumer.close()
  })

  test('that only a settlement reveals is treated alike', async () => {
    const handler = new HeldHandler()
    const { source, consumer, logger } = await startRig({ handle: handler.handle }, { concurrency: 2 })
    source.settleAnswers.push(async () => [0])
    source.offer(grantOf([0, 1, 2]), grantOf([10]))
    await settleDown()
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2], 'started before the answer came')
    handler.of(1).resolve()
    handler.of(2).resolve()
    await settleDown()
    handler.of(10).resolve()
    await settleDown()
    assert.equal(logger.matching('warn', 'POSTHORN_LEASE_LOST').length, 1)
    assert.deepEqual(
      source.settlements.flat().map(({ lease }) => lease),
      [0, 10],
    )
    await consumer.close()
  })

  test('keeps its handlers within the concurrency until they end', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 1 })
    source.offer(grantOf([0]), grantOf([10]))
    await settleDown()
    source.lose([0])
    await settleDown()
    assert.deepEqual(handler.started, [0])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 10])
    handler.of(10).resolve()
    await consumer.close()
  })

  test('that is not known is passed over', async () => {
    const { source, consumer, logger } = await startRig({ handle: () => {} })
    source.lose([99])
    assert.deepEqual(logger.lines, [])
    await consumer.close()
  })
})
