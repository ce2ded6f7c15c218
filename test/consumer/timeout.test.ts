import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { PosthornError } from '../../src/errors.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS, startRig } from './harness.ts'

/** A clock whose wall time can be set, as operators and time services do. */
class AdjustableClock extends VirtualClock {
  stepMs = 0

  override now(): number {
    return super.now() + this.stepMs
  }
}

describe('a handler that outruns its timeout', () => {
  test('is told by its signal, fails, and makes room for the next at once', async () => {
    const handler = new HeldHandler()
    const signals: AbortSignal[] = []
    const { source, consumer, clock, logger } = await startRig(
      {
        handle: (event, { signal }) => {
          signals.push(signal)
          return handler.handle(event)
        },
      },
      { concurrency: 1, timeoutMs: 5_000 },
    )
    source.offer(grantOf([0, 1]))
    await clock.advance(4_999)
    await settleDown()
    assert.deepEqual(handler.started, [0])
    assert.equal(signals[0]?.aborted, false)
    await clock.advance(1)
    await settleDown()
    assert.ok(signals[0]?.reason instanceof PosthornError)
    assert.equal(signals[0].reason.code, 'POSTHORN_HANDLER_TIMEOUT')
    assert.deepEqual(handler.started, [0, 1])
    const [retry] = source.exceptions()
    assert.ok(retry?.kind === 'retry')
    assert.equal(retry.failure.code, 'POSTHORN_HANDLER_TIMEOUT')
    assert.equal(retry.dueAtMs, START_MS + 5_000 + 1_000)
    assert.equal(logger.matching('warn', 'POSTHORN_HANDLER_TIMEOUT').length, 1)
    handler.of(1).resolve()
    await consumer.close()
    assert.deepEqual(source.acked(), [1])
  })

  for (const [way, end] of [
    ['resolves', (handler: HeldHandler) => handler.of(0).resolve()],
    ['rejects', (handler: HeldHandler) => handler.of(0).reject(new Error('too late'))],
  ] as const) {
    test(`changes nothing when it ${way} later, except for one warning`, async () => {
      const handler = new HeldHandler()
      const { source, consumer, clock, logger } = await startRig({ handle: handler.handle }, { timeoutMs: 5_000 })
      source.offer(grantOf([0]))
      await clock.advance(5_000)
      await settleDown()
      end(handler)
      await settleDown()
      assert.deepEqual(source.verdicts(), ['0 retry'])
      assert.deepEqual(source.acked(), [])
      assert.equal(logger.matching('warn', 'ended after it had been given up').length, 1)
      await consumer.close()
    })
  }

  for (const stepMs of [-3_600_000, 3_600_000]) {
    test(`is found in its time when the wall clock moves by ${stepMs} ms`, async () => {
      const handler = new HeldHandler()
      const clock = new AdjustableClock(START_MS)
      const { source, consumer } = await startRig({ handle: handler.handle }, { timeoutMs: 5_000 }, clock)
      source.offer(grantOf([0]))
      await clock.advance(1_000)
      clock.stepMs = stepMs
      source.offer(grantOf([1]))
      await clock.advance(3_999)
      await settleDown()
      assert.deepEqual(source.verdicts(), [])
      await clock.advance(1)
      await settleDown()
      assert.deepEqual(source.verdicts(), ['0 retry'])
      await clock.advance(1_000)
      await settleDown()
      assert.deepEqual(source.verdicts(), ['0 retry', '1 retry'])
      await consumer.close()
    })
  }

  test('becomes a dead letter at its last attempt', async () => {
    const { source, consumer, clock } = await startRig({ handle: () => new Promise(() => {}) }, { timeoutMs: 5_000 })
    source.offer(grantOf([0], { attempt: 3 }))
    await clock.advance(5_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead attempts'])
    await consumer.close()
  })

  test('is found among others, each by the time of its own start', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startRig({ handle: handler.handle }, { timeoutMs: 5_000 })
    source.offer(grantOf([0]))
    await clock.advance(2_000)
    source.offer(grantOf([1]), grantOf([2]))
    await clock.advance(2_000)
    source.offer(grantOf([3]))
    await settleDown()
    handler.of(1).resolve()
    await clock.advance(1_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'])
    await clock.advance(2_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry', '2 retry'])
    await clock.advance(2_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry', '2 retry', '3 retry'])
    assert.deepEqual(source.acked(), [1])
    await consumer.close()
  })

  test('that never ends holds nothing up, however many there are', async () => {
    const { source, consumer, clock } = await startRig(
      { handle: (event) => ((event.data as number) % 2 === 0 ? new Promise(() => {}) : undefined) },
      { concurrency: 2, timeoutMs: 100 },
    )
    source.offer(grantOf(offsets(0, 40)))
    await clock.advance(100 * 10)
    await settleDown()
    assert.deepEqual(
      source.acked(),
      offsets(0, 40).filter((offset) => offset % 2 === 1),
    )
    assert.equal(source.exceptions().length, 20)
    await consumer.close()
  })
})
