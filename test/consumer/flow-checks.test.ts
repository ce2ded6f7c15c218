/** Events that have to pass a check before they are handed over, in a subscription with limits. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { StoredEvent } from '../../src/engine.ts'
import { pause } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { START_MS } from './harness.ts'
import { inFlight, rate, recorder, sharedBy, startLimited } from './limited-rig.ts'

/** Checks that end when the test says so. */
class HeldChecks {
  readonly begun: unknown[] = []
  readonly #ends = new Map<unknown, PromiseWithResolvers<StoredEvent>>()

  readonly checkEvent = (event: StoredEvent): Promise<StoredEvent> => {
    const end = Promise.withResolvers<StoredEvent>()
    this.begun.push(event.data)
    this.#ends.set(event.data, end)
    return end.promise.then(() => ({ ...event, data: `checked ${event.data}` }))
  }

  pass(offset: number): void {
    this.#ends.get(offset)!.resolve({} as StoredEvent)
  }

  refuse(offset: number): void {
    this.#ends.get(offset)!.reject(new Error('unfit'))
  }
}

async function startChecked(changes = {}) {
  const clock = new VirtualClock(START_MS)
  const checks = new HeldChecks()
  const { starts, handle } = recorder(clock)
  const handlers = { handle, checkEvent: checks.checkEvent }
  const limit = inFlight(5)
  const rig = await startLimited([limit], handlers, { timeoutMs: 5_000, ...changes }, sharedBy(clock, limit))
  const started = () => starts.map(({ offset }) => offset)
  return { ...rig, checks, started }
}

describe('the check of an event', () => {
  test('however long it takes, lets no more start than the limit', async () => {
    const clock = new VirtualClock(START_MS)
    const { starts, handle } = recorder(clock)
    const checkEvent = async (event: StoredEvent) => {
      await pause(clock, (event.data as number) % 20 < 10 ? 900 : 1)
      return event
    }
    const { source, consumer } = await startLimited(
      [rate(10)],
      { handle, checkEvent },
      { concurrency: 20 },
      sharedBy(clock, rate(10)),
    )
    source.offer(grantOf(offsets(0, 60)))
    await clock.advance(5_000)
    const times = starts.map(({ atMs }) => atMs)
    for (const fromMs of times) {
      assert.ok(times.filter((atMs) => atMs >= fromMs && atMs < fromMs + 1_000).length <= 10)
    }
    assert.ok(times.length >= 45, `${times.length} in 5 s`)
    await consumer.close()
  })

  test('comes before its permission, and its outcome is what is handed over', async () => {
    const { source, consumer, checks, started } = await startChecked()
    source.offer(grantOf([0, 1]))
    await settleDown()
    assert.deepEqual(checks.begun, [0, 1])
    assert.deepEqual(source.admissions, [])
    checks.pass(1)
    await settleDown()
    assert.deepEqual(started(), ['checked 1'])
    checks.pass(0)
    await settleDown()
    assert.deepEqual(started(), ['checked 1', 'checked 0'])
    assert.deepEqual(checks.begun, [0, 1], 'once each')
    assert.deepEqual(source.acked().toSorted(), [0, 1])
    await consumer.close()
  })

  test('is under way for no more than there could be handlers for', async () => {
    const { source, consumer, checks } = await startChecked({ concurrency: 2 })
    source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    assert.deepEqual(checks.begun, [0, 1])
    checks.pass(0)
    await settleDown()
    assert.deepEqual(checks.begun, [0, 1, 2])
    checks.refuse(1)
    await settleDown()
    assert.deepEqual(checks.begun, [0, 1, 2, 3])
    await consumer.close()
  })

  test('makes a dead letter of what it refuses, which takes no place', async () => {
    const { source, consumer, checks, started } = await startChecked()
    source.offer(grantOf([0]))
    await settleDown()
    checks.refuse(0)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead invalid'])
    assert.deepEqual([started(), source.admissions], [[], []])
    await consumer.close()
  })

  test('fails an attempt when it outruns the timeout', async () => {
    const { source, consumer, checks, started, clock, logger } = await startChecked()
    source.offer(grantOf([0]))
    await settleDown()
    await clock.advance(5_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'])
    assert.equal(logger.matching('warn', 'POSTHORN_HANDLER_TIMEOUT').length, 1)
    checks.pass(0)
    await settleDown()
    assert.deepEqual(started(), [])
    await consumer.close()
  })

  test('has no effect once its message was cancelled or its lease lost, or the consumer has closed', async () => {
    const { source, consumer, checks, started } = await startChecked()
    source.offer(grantOf([0, 1]), grantOf([2]))
    await settleDown()
    source.cancel(0, 0)
    source.lose([1])
    await settleDown()
    const closed = consumer.close()
    for (const offset of [0, 1, 2]) checks.pass(offset)
    await closed
    assert.deepEqual(started(), [])
  })

  test('of a suspect comes before its permission as well', async () => {
    const { source, consumer, checks, started } = await startChecked()
    source.offer(grantOf([0], { isolated: true, crashes: 1 }), grantOf([1]))
    await settleDown()
    assert.deepEqual([checks.begun, source.admissions], [[0], []])
    checks.pass(0)
    await settleDown()
    assert.deepEqual(started(), ['checked 0'])
    checks.pass(1)
    await settleDown()
    assert.deepEqual(started(), ['checked 0', 'checked 1'])
    await consumer.close()
  })
})
