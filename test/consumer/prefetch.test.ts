import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DurationAverage, messagesAhead, messagesWanted, refillBelow } from '../../src/consumer/fetching/prefetch.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, startRig } from './harness.ts'

const pace = (averageMs: number, concurrency = 10, callSize = 1) => ({ averageMs, concurrency, callSize })

describe('the sizing of prefetch', () => {
  test('keeps about 100 ms of work ahead', () => {
    assert.equal(messagesAhead(pace(1)), 1_000)
    assert.equal(messagesAhead(pace(10)), 100)
    assert.equal(messagesAhead(pace(100)), 10)
    assert.equal(messagesAhead(pace(10, 10, 20)), 2_000, 'in batches of 20')
  })

  test('has an upper limit, also for handlers that take no time', () => {
    assert.equal(messagesAhead(pace(0)), 2_048)
    assert.equal(messagesAhead(pace(0.001)), 2_048)
    assert.equal(messagesWanted(pace(0), 0, 0), 2_048)
  })

  test('does not hoard for slow handlers, nor for those whose pace is unknown', () => {
    for (const averageMs of [-1, 101, 60_000]) {
      assert.equal(messagesWanted(pace(averageMs), 0, 0), 11)
      assert.equal(messagesWanted(pace(averageMs), 10, 0), 1)
      assert.equal(messagesWanted(pace(averageMs), 10, 1), 0)
    }
  })

  test('always lets a batch become full', () => {
    assert.equal(messagesWanted(pace(60_000, 1, 100), 1, 40), 60)
    assert.equal(refillBelow(pace(60_000, 1, 100), 3), 100)
    assert.equal(messagesWanted(pace(1, 1, 9_000), 0, 0), 9_000)
  })

  test('asks again at half, of what is kept or of what the last pull brought', () => {
    assert.equal(refillBelow(pace(1), 1_000), 500)
    assert.equal(refillBelow(pace(1), 6), 3)
    assert.equal(refillBelow(pace(1), 0), 1)
    assert.equal(refillBelow(pace(500), 1_000), 1)
  })

  test('wants something whenever the buffer is below that', () => {
    for (const averageMs of [-1, 0, 0.5, 3, 99, 100, 101, 5_000]) {
      for (const callSize of [1, 7, 5_000]) {
        const current = pace(averageMs, 3, callSize)
        const buffered = refillBelow(current, 100_000) - 1
        assert.ok(messagesWanted(current, 3, buffered) > 0, `${averageMs} ms, batches of ${callSize}`)
      }
    }
  })
})

describe('the average duration', () => {
  test('starts with the first observation, and follows the later ones slowly', () => {
    const durations = new DurationAverage()
    assert.equal(durations.averageMs, -1)
    durations.observe(100)
    assert.equal(durations.averageMs, 100)
    durations.observe(116)
    assert.equal(durations.averageMs, 101)
    for (let observation = 0; observation < 200; observation++) durations.observe(2)
    assert.ok(Math.abs(durations.averageMs - 2) < 0.1)
  })
})

describe('a consumer', () => {
  test('starts with little, and fetches far ahead once its handlers prove fast', async () => {
    const { source, consumer } = await startRig({ handle: () => {} })
    assert.deepEqual(source.pulls, [{ messagesMax: 11, bytesMax: 4 * 1024 * 1024 }])
    source.offer(grantOf(offsets(0, 11)))
    await settleDown()
    assert.equal(source.pulls.at(-1)?.messagesMax, 2_048)
    await consumer.close()
  })

  test('of slow jobs holds one message more than it runs', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startRig({ handle: handler.handle }, { concurrency: 2 })
    source.offer(grantOf([0, 1, 2]))
    await clock.advance(5_000)
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2])
    assert.equal(source.pulls.at(-1)?.messagesMax, 1)
    source.offer(grantOf([3]))
    await settleDown()
    assert.equal(source.pulls.length, 2, 'there is one buffered, and no free handler')
    for (const offset of [1, 2]) handler.of(offset).resolve()
    await settleDown()
    handler.of(3).resolve()
    await consumer.close()
  })

  test('stops fetching ahead once its handlers turn slow', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startRig(
      { handle: (event) => ((event.data as number) < 5 ? undefined : handler.handle(event)) },
      { concurrency: 1 },
    )
    source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    source.offer(grantOf(offsets(5, 15)))
    await settleDown()
    const pulls = source.pulls.length
    for (let offset = 5; offset < 13; offset++) {
      await clock.advance(5_000)
      handler.of(offset).resolve()
      await settleDown()
    }
    assert.deepEqual(handler.started, offsets(5, 14))
    assert.equal(source.pulls.length, pulls, 'one message is buffered, and that is enough')
    for (const offset of [13, 14]) {
      handler.of(offset).resolve()
      await settleDown()
    }
    await consumer.close()
  })

  test('fetches while its handlers run', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 1 })
    source.offer(grantOf([0]))
    await settleDown()
    assert.equal(source.pulls.length, 2)
    source.offer(grantOf([1]))
    await settleDown()
    assert.deepEqual(handler.started, [0])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    handler.of(1).resolve()
    await consumer.close()
  })
})
