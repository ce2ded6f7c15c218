/** What is deleted, and above all what is not. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const MAX_AGE_MS = 5_000
const BY_AGE = { maxAgeMs: MAX_AGE_MS, dropUnread: false }

export const retention: Guarantee = (test) => {
  test('what every subscription has settled is deleted once it is old enough', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    const source = await process.subscribe()
    await process.publish(['a', 'b'])
    await source.drain()
    assert.equal(await process.admin.applyRetention(), 0)
    assert.equal((await process.topicState()).messages, 2)
    await world.advance(MAX_AGE_MS + 1)
    await process.admin.applyRetention()
    assert.partialDeepStrictEqual(await process.topicState(), {
      messages: 0,
      bytes: 0,
      partitions: [{ partition: 0, firstOffset: 2, nextOffset: 2 }],
    })
  })

  test('what one subscription has not had is kept', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    const fast = await process.subscribe({ subscription: 'fast' })
    await process.subscription({ subscription: 'slow' })
    await process.publish(['a'])
    await fast.drain()
    await world.advance(10 * MAX_AGE_MS)
    assert.equal(await process.admin.applyRetention(), 0)
    assert.deepEqual(dataOf(await (await process.source('slow')).drain()), ['a'])
  })

  test('what is leased, waits for a retry or was returned is kept', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    const source = await process.subscribe()
    await process.publish(['leased'])
    await process.publish(['failing'])
    await process.publish(['released'])
    const [leased, failing, released] = [await source.pullOne(), await source.pullOne(), await source.pullOne()]
    await source.retry([failing], world.clock.now() + 20 * MAX_AGE_MS)
    await source.release([released])
    await world.advance(10 * MAX_AGE_MS)
    assert.equal(await process.admin.applyRetention(), 0)
    await source.ack([leased])
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 2)
    assert.deepEqual(dataOf(await source.drain()), ['released'])
    await world.advance(10 * MAX_AGE_MS)
    assert.deepEqual(dataOf(await source.drain()), ['failing'])
  })

  test('beyond the limit of bytes, the oldest settled messages go first', async (world) => {
    const process = await world.process()
    const text = 'x'.repeat(1_000)
    await process.topic({ retention: { ...BY_AGE, maxBytes: 3_500 } })
    const source = await process.subscribe()
    for (let number = 0; number < 6; number++) await process.publish([text])
    assert.equal(await process.admin.applyRetention(), 0)
    await source.drain()
    await process.admin.applyRetention()
    const state = await process.topicState()
    assert.ok(state.bytes <= 3_500 && state.messages >= 2, `${state.bytes} bytes`)
    assert.equal(state.partitions[0]?.firstOffset, 6 - state.messages)
  })

  test('a topic without subscriptions keeps everything', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    await process.publish(['early'])
    await world.advance(10 * MAX_AGE_MS)
    assert.equal(await process.admin.applyRetention(), 0)
    assert.deepEqual(dataOf(await (await process.subscribe()).pull()), ['early'])
  })

  test('a topic whose last subscription was deleted keeps nothing for it: age decides', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    await process.subscription()
    await process.publish(['old'])
    await process.admin.deleteSubscription(HERE)
    assert.equal(await process.admin.applyRetention(), 0)
    await world.advance(MAX_AGE_MS + 1)
    await process.publish(['young'])
    await process.admin.applyRetention()
    assert.partialDeepStrictEqual(await process.topicState(), {
      messages: 1,
      partitions: [{ partition: 0, firstOffset: 1, nextOffset: 2 }],
    })
  })

  test('dropUnread deletes by age alone, and subscriptions go on with what is left', async (world) => {
    const process = await world.process()
    await process.topic({ retention: { maxAgeMs: MAX_AGE_MS, dropUnread: true } })
    const source = await process.subscribe()
    await process.publish(['old'])
    await world.advance(MAX_AGE_MS + 1)
    await process.publish(['young'])
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 1)
    assert.equal((await process.state()).backlog, 1)
    assert.deepEqual(dataOf(await source.pullAll()), ['young'])
  })

  test("a queue's messages go as soon as they are settled", async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    await process.publish(['a', 'b', 'c'])
    const [grant] = await source.pull()
    await source.source.settle([{ lease: grant!.lease, acked: [0, 2], exceptions: [] }])
    await process.publish(['d'])
    assert.ok((await process.topicState()).messages >= 2)
    await source.source.settle([{ lease: grant!.lease, acked: [2, 3], exceptions: [] }])
    assert.equal((await process.topicState()).messages, 1)
    await source.drain()
    assert.equal((await process.topicState()).messages, 0)
  })

  test('a queue without its subscription keeps everything', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    await process.publish(['a'])
    await process.admin.applyRetention()
    assert.deepEqual(dataOf(await (await process.subscribe()).pull()), ['a'])
  })

  test('a queue whose subscription was deleted keeps everything for the next one', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue', retention: BY_AGE })
    await process.subscription()
    await process.publish(['before'])
    await process.admin.deleteSubscription(HERE)
    await process.publish(['after'])
    await world.advance(MAX_AGE_MS + 1)
    assert.equal(await process.admin.applyRetention(), 0)
    assert.deepEqual(dataOf(await (await process.subscribe()).drain()), ['before', 'after'])
  })

  test('a replay starts at the first message that is still there', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    const source = await process.subscribe()
    await process.publish(['old'])
    await source.drain()
    await world.advance(MAX_AGE_MS + 1)
    await process.publish(['young'])
    await source.drain()
    await process.admin.applyRetention()
    await process.admin.seek(HERE, { offset: 0 })
    assert.deepEqual(dataOf(await source.drain()), ['young'])
  })

  test('retention runs by itself', async (world) => {
    const process = await world.process()
    await process.topic({ retention: BY_AGE })
    const source = await process.subscribe()
    await process.publish(['a'])
    await source.drain()
    await world.eventually(async () => {
      await world.advance(60_000)
      assert.equal((await process.topicState()).messages, 0)
    })
  })
}
