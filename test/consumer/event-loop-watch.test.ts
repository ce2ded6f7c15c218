import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { EventLoopWatch, startConsumer } from '../../src/consumer/consumer.ts'
import type { Clock, Timer } from '../../src/environment/index.ts'
import { engineOf, FakeSource, grantOf, settleDown } from './fake-source.ts'
import { defaultSettings, environmentOf, RecordingLogger } from './harness.ts'

/** Says that it is real, moves when told to, and fires timers only when told to: a loop that can be blocked. */
class BlockableClock implements Clock {
  readonly real: boolean
  /** By how much the wall clock was set forward. */
  stepMs = 0
  readonly timers = new Map<Timer, { dueAtMs: number; callback: () => void }>()
  #nowMs = 1_000

  constructor(real = true) {
    this.real = real
  }

  now(): number {
    return this.#nowMs + this.stepMs
  }

  elapsedMs(): number {
    return this.#nowMs
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer: Timer = { cancel: () => void this.timers.delete(timer) }
    this.timers.set(timer, { dueAtMs: this.#nowMs + delayMs, callback })
    return timer
  }

  pass(durationMs: number): void {
    this.#nowMs += durationMs
  }

  fireDue(): void {
    for (const [timer, { dueAtMs, callback }] of [...this.timers]) {
      if (dueAtMs > this.#nowMs) continue
      this.timers.delete(timer)
      callback()
    }
  }
}

function start(real = true) {
  const clock = new BlockableClock(real)
  const logger = new RecordingLogger()
  return { clock, logger, watch: new EventLoopWatch(environmentOf(clock, logger)) }
}

const blocked = (logger: RecordingLogger) =>
  logger.lines.filter(({ fields }) => fields.code === 'POSTHORN_EVENT_LOOP_BLOCKED')

describe('the event loop watch', () => {
  test('names the subscriptions whose handlers ran while the loop was blocked', () => {
    const { clock, logger, watch } = start()
    const asked: number[] = []
    watch.register({ name: 'resize', ranSince: (timeMs) => asked.push(timeMs) > 0 })
    watch.register({ name: 'email', ranSince: () => false })
    clock.pass(3_100)
    clock.fireDue()
    assert.deepEqual(
      blocked(logger).map(({ fields }) => [fields.handlers, fields.blockedMs]),
      [['resize', 3_000]],
    )
    assert.deepEqual(asked, [1_100], 'since the time at which the timer should have fired')
  })

  test('finds a handler that blocked the loop and came to its end', async () => {
    const { clock, logger, watch } = start()
    const environment = environmentOf(clock, logger)
    const open = (subscription: string, source: FakeSource) =>
      startConsumer(
        engineOf(source),
        environment,
        { ...defaultSettings, subscription },
        { handle: () => clock.pass(3_100) },
        watch,
      )
    const [busy, idle] = [new FakeSource(), new FakeSource()]
    const consumers = [open('resize', busy), open('email', idle)]
    busy.offer(grantOf([0]))
    await settleDown()
    clock.fireDue()
    assert.deepEqual(
      blocked(logger).map(({ fields }) => fields.handlers),
      ['resize'],
    )
    await Promise.all(consumers.map((consumer) => consumer.close()))
    assert.equal(clock.timers.size, 0, 'no timer is left behind')
  })

  test('is left without a timer by a batch consumer that closes while it waits', async () => {
    const { clock, logger, watch } = start()
    const source = new FakeSource()
    const settings = { ...defaultSettings, batch: { size: 2, waitMs: 60_000 } }
    const environment = environmentOf(clock, logger)
    const consumer = startConsumer(engineOf(source), environment, settings, { handleBatch: () => {} }, watch)
    source.offer(grantOf([0]))
    await settleDown()
    assert.equal(clock.timers.size, 2)
    await consumer.close()
    assert.equal(clock.timers.size, 0)
  })

  test('blames nobody when no handler ran', () => {
    const { clock, logger, watch } = start()
    watch.register({ name: 'email', ranSince: () => false })
    clock.pass(5_000)
    clock.fireDue()
    assert.deepEqual(
      blocked(logger).map(({ fields }) => fields.handlers),
      ['none'],
    )
  })

  test('keeps silent as long as the loop is at most a second late, and goes on watching', () => {
    const { clock, logger, watch } = start()
    watch.register({ name: 'email', ranSince: () => true })
    for (let round = 0; round < 3; round++) {
      clock.pass(1_100)
      clock.fireDue()
    }
    assert.deepEqual(logger.lines, [])
    clock.pass(1_101)
    clock.fireDue()
    assert.equal(blocked(logger).length, 1)
  })

  test('does not take a wall clock that is set forward for a blocked loop', () => {
    const { clock, logger, watch } = start()
    watch.register({ name: 'email', ranSince: () => true })
    clock.stepMs = 3_600_000
    clock.pass(100)
    clock.fireDue()
    assert.deepEqual(logger.lines, [])
  })

  test('has one timer, as long as anybody is registered', () => {
    const { clock, watch } = start()
    const removals = ['a', 'b'].map((name) => watch.register({ name, ranSince: () => false }))
    assert.equal(clock.timers.size, 1)
    removals[0]?.()
    assert.equal(clock.timers.size, 1)
    removals[1]?.()
    assert.equal(clock.timers.size, 0)
    watch.register({ name: 'c', ranSince: () => false })
    assert.equal(clock.timers.size, 1)
  })

  test('does nothing on a clock that is not real', () => {
    const { clock, watch } = start(false)
    watch.register({ name: 'email', ranSince: () => true })
    assert.equal(clock.timers.size, 0)
  })
})
