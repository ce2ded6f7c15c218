import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { EventLoopWatch, startConsumer } from '../../src/consumer/consumer.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { PosthornError } from '../../src/errors.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { engineOf, FakeSource, grantOf, messageAt, offsets, settleDown } from './fake-source.ts'
import { defaultSettings, environmentOf, HeldHandler, RecordingLogger, START_MS, startRig } from './harness.ts'

describe('closing a consumer', () => {
  test('hands back what did not start, waits for what runs, settles it, and closes the source once', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 2 })
    source.offer(grantOf(offsets(0, 4)))
    await settleDown()
    const closed = consumer.close()
    assert.equal(consumer.close(), closed)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['2 release', '3 release'])
    assert.equal(source.closes, 0)
    handler.of(0).resolve()
    handler.of(1).reject(new Error('no'))
    await closed
    assert.deepEqual(source.acked(), [0])
    assert.deepEqual(source.verdicts(), ['2 release', '3 release', '1 retry'])
    assert.equal(source.closes, 1)
    assert.deepEqual(handler.started, [0, 1])
  })

  test('happens by itself when the subscription is deleted, once what runs has ended', async () => {
    const handler = new HeldHandler()
    const { source, consumer, logger } = await startRig({ handle: handler.handle })
    const details = { topic: 'orders', subscription: 'billing' }
    source.pullAnswers.push(() => Promise.reject(new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', details)))
    source.offer(grantOf([0]))
    await settleDown()
    assert.equal(logger.matching('error', 'POSTHORN_SUBSCRIPTION_NOT_FOUND').length, 1)
    assert.equal(source.closes, 0)
    const pulls = source.pulls.length
    handler.of(0).resolve()
    await consumer.ended
    assert.equal(source.closes, 1)
    assert.equal(source.pulls.length, pulls, 'it is not asked again')
    assert.equal(logger.matching('error', '').length, 1)
  })

  test('leaves it to the source to take back a buffer beside which nothing runs', async () => {
    const { source, consumer } = await startRig({ handleBatch: () => {} }, { batch: { size: 10, waitMs: 60_000 } })
    source.offer(grantOf([0, 1]))
    await settleDown()
    await consumer.close()
    assert.deepEqual(source.settlements, [])
    assert.equal(source.closes, 1)
  })

  test('hands back what arrives after it began', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    const pull = Promise.withResolvers<ReturnType<typeof grantOf>[]>()
    source.pullAnswers.push(() => pull.promise)
    source.offer(grantOf([0]))
    await settleDown()
    const closed = consumer.close()
    pull.resolve([grantOf([10, 11])])
    await settleDown()
    assert.deepEqual(source.verdicts(), ['10 release', '11 release'])
    handler.of(0).resolve()
    await closed
    assert.deepEqual(handler.started, [0])
  })

  test('aborts the signals of handlers that outlast the drain, and does not hold their stopping against them', async () => {
    const handler = new HeldHandler()
    const signals: AbortSignal[] = []
    const { source, consumer, clock } = await startRig({
      handle: (event, { signal }) => {
        signals.push(signal)
        return handler.handle(event)
      },
    })
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    const closed = consumer.close()
    await clock.advance(9_999)
    assert.equal(signals[0]?.aborted, false)
    await clock.advance(1)
    assert.ok(signals[0]?.reason instanceof PosthornError)
    assert.equal(signals[0].reason.code, 'POSTHORN_CLOSED')
    handler.of(0).reject(new Error('stopped'))
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 release'])
    assert.deepEqual(source.acked(), [1])
    assert.equal(source.closes, 0)
    await clock.advance(1_000)
    await closed
    assert.equal(source.closes, 1)
    handler.of(2).resolve()
    await settleDown()
    assert.deepEqual(source.acked(), [1], 'what ends after closing has no effect')
  })

  for (const kind of ['handle', 'handleBatch'] as const) {
    test(`does not acknowledge a message whose check was all that ran (${kind})`, async () => {
      const check = Promise.withResolvers<StoredEvent>()
      let calls = 0
      const count = () => calls++
      const checkEvent = () => check.promise
      const handlers = kind === 'handle' ? { handle: count, checkEvent } : { handleBatch: count, checkEvent }
      const { source, consumer, clock } = await startRig(handlers)
      source.offer(grantOf([0]))
      await settleDown()
      const closed = consumer.close()
      await clock.advance(10_000)
      check.resolve(messageAt(0).event)
      await closed
      assert.equal(calls, 0)
      assert.deepEqual(source.verdicts(), ['0 release'])
    })
  }

  test('tries a settlement that failed again at once', async () => {
    const { source, consumer } = await startRig({ handle: () => {} })
    source.settleAnswers.push(() => Promise.reject(new Error('disk gone')))
    source.offer(grantOf([0]))
    await settleDown()
    await consumer.close()
    assert.deepEqual(source.settlements.at(-1), [{ lease: 0, acked: [0, 1], exceptions: [] }])
    assert.equal(source.settlements.length, 2)
  })

  test('gives up settling after a few seconds of failures', async () => {
    const { source, consumer, clock } = await startRig({ handle: () => {} })
    for (let failure = 0; failure < 100; failure++) {
      source.settleAnswers.push(() => Promise.reject(new Error('disk gone')))
    }
    source.offer(grantOf([0]))
    await settleDown()
    const closed = consumer.close()
    await clock.advance(5_000)
    await closed
    const calls = source.settlements.length
    assert.ok(calls > 3, 'it tried')
    assert.equal(source.closes, 1)
    await clock.advance(60_000)
    await settleDown()
    assert.equal(source.settlements.length, calls)
  })

  test('ends though handlers, pull, settle and close of the source never do', async () => {
    const { source, consumer, clock } = await startRig({
      handle: (event) => (event.data === 0 ? new Promise(() => {}) : undefined),
    })
    const never = () => new Promise<never>(() => {})
    source.settleAnswers.push(never)
    source.pullAnswers.push(never)
    source.closing = never()
    source.offer(grantOf([0, 1]))
    await settleDown()
    let ended = false
    const closed = consumer.close().then(() => {
      ended = true
    })
    await clock.advance(10_000 + 1_000 + 3 * 5_000)
    await settleDown()
    assert.ok(ended)
    await closed
  })

  test('does not reject when the source cannot be closed', async () => {
    const { source, consumer, logger } = await startRig({ handle: () => {} })
    source.closing = Promise.reject(new Error('no network'))
    source.closing.catch(() => {})
    await consumer.close()
    assert.equal(logger.matching('error', 'no network').length, 1)
  })
})

describe('opening a consumer', () => {
  const start = (source: FakeSource, opening: Promise<void>) => {
    const clock = new VirtualClock(START_MS)
    const logger = new RecordingLogger()
    const environment = environmentOf(clock, logger)
    const watch = new EventLoopWatch(environment)
    const consumer = startConsumer(engineOf(source, opening), environment, defaultSettings, { handle: () => {} }, watch)
    return { consumer, clock, logger }
  }

  test('rejects ready when the engine cannot, and leaves nothing to close', async () => {
    const source = new FakeSource()
    const { consumer, logger } = start(source, Promise.reject(new Error('no such topic')))
    await settleDown()
    await assert.rejects(consumer.ready, /no such topic/)
    await consumer.close()
    assert.equal(source.closes, 0)
    assert.deepEqual(logger.lines, [])
  })

  test('tells the engine what it needs to know', async () => {
    const { source, consumer } = await startRig({ handle: () => {} }, { timeoutMs: 7_000 })
    const { topic, subscription, handlerTimeoutMs } = source.options!
    assert.deepEqual([topic, subscription, handlerTimeoutMs], ['orders', 'billing', 7_000])
    await consumer.close()
  })

  test('while closing closes the source as soon as it is there, however late', async () => {
    const source = new FakeSource()
    const opening = Promise.withResolvers<void>()
    const { consumer, clock } = start(source, opening.promise)
    const closed = consumer.close()
    await clock.advance(5_000)
    await closed
    opening.resolve()
    await settleDown()
    assert.equal(source.closes, 1)
    assert.deepEqual(source.pulls, [])
  })
})
