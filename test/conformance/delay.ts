/** Delayed messages enter the log when they are due. */
import assert from 'node:assert/strict'
import { dataOf } from './messages.ts'
import type { Guarantee } from './suite.ts'

export const delay: Guarantee = (test) => {
  test('a delayed message comes at its time and not before', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const deliverAtMs = world.clock.now() + 2_000
    assert.deepEqual(await process.publish(['later'], { deliverAtMs }), [{ duplicate: false }])
    assert.partialDeepStrictEqual(await process.topicState(), { delayed: 1, messages: 0 })
    await world.advance(1_999)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(1)
    assert.deepEqual(dataOf(await source.pull()), ['later'])
    assert.partialDeepStrictEqual(await process.topicState(), { delayed: 0, messages: 1 })
  })

  test('a waiting pull wakes when it is due', async (world) => {
    const [worker, publisher] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    const waiting = source.pull()
    await worker.roundTrip()
    await publisher.publish(['later'], { deliverAtMs: world.clock.now() + 700 })
    await world.advance(700)
    assert.deepEqual(dataOf(await waiting), ['later'])
  })

  test('delayed messages come in the order of their times, not of their publishing', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const nowMs = world.clock.now()
    for (const seconds of [3, 1, 2]) await process.publish([seconds], { deliverAtMs: nowMs + seconds * 1_000 })
    const seen: unknown[] = []
    for (let second = 0; second < 3; second++) {
      await world.advance(1_000)
      seen.push(...dataOf(await source.pullAll()))
    }
    assert.deepEqual(seen, [1, 2, 3])
  })

  test('a time that has passed is no delay', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['now'], { deliverAtMs: world.clock.now() })
    await process.publish(['past'], { deliverAtMs: world.clock.now() - 1_000 })
    assert.deepEqual(dataOf(await source.pullAll()), ['now', 'past'])
  })

  test('the delay outlives the process that published, and every subscription gets the message once', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.subscription({ subscription: 'mail' })
    await doomed.subscription({ subscription: 'fraud' })
    await doomed.publish(['later'], { deliverAtMs: world.clock.now() + 500 })
    await doomed.crash()
    await world.advance(500)
    for (const name of ['mail', 'fraud']) {
      const source = await survivor.source(name)
      assert.deepEqual(dataOf(await source.drain()), ['later'])
    }
  })

  test('a key keeps its partition through the delay', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 8 })
    const source = await process.subscribe()
    const [receipt] = await process.publish(['now'], { key: 'user-1' })
    await process.publish(['later'], { key: 'user-1', deliverAtMs: world.clock.now() + 500 })
    await world.advance(500)
    const grants = await source.pullAll()
    assert.deepEqual(dataOf(grants), ['now', 'later'])
    for (const { partition } of grants) assert.equal(partition, receipt?.partition)
  })
}
