/** What operators see. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import { LEASE_MS } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const admin: Guarantee = (test) => {
  test('topics say what they hold', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 2 })
    await process.subscription()
    await process.publish(['a', 'b', 'c'], { key: 'k' })
    const state = await process.topicState()
    assert.partialDeepStrictEqual(state, { topic: TOPIC, kind: 'topic', messages: 3, delayed: 0, subscriptions: 1 })
    assert.ok(state.bytes > 0)
    assert.deepEqual(
      state.partitions.map(({ partition }) => partition),
      [0, 1],
    )
    assert.equal(
      state.partitions.reduce((total, { nextOffset, firstOffset }) => total + nextOffset - firstOffset, 0),
      3,
    )
  })

  test('a subscription accounts for every message: backlog, leased, retrying, returned, dead', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['acked', 'leased', 'failing', 'dead', 'released', 'waiting'])
    const [acked, , failing, dead, released] = [
      await source.pullOne(),
      await source.pullOne(),
      await source.pullOne(),
      await source.pullOne(),
      await source.pullOne(),
    ]
    await source.ack([acked])
    await source.retry([failing], world.clock.now() + 1_000)
    await source.dead([dead])
    await source.release([released])
    assert.partialDeepStrictEqual(await process.state(), {
      ...HERE,
      paused: false,
      backlog: 1,
      leased: 1,
      retrying: 1,
      returned: 1,
      deadLetters: 1,
      positions: [{ partition: 0, offset: 5 }],
    })
  })

  test('the lag is the age of the oldest message not yet handed out', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    assert.equal((await process.state()).lagMs, 0)
    await process.publish(['a'])
    await world.advance(2_000)
    await process.publish(['b'])
    await world.advance(1_000)
    assert.equal((await process.state()).lagMs, 3_000)
    await source.pullOne()
    assert.equal((await process.state()).lagMs, 1_000)
    await source.pullOne()
    assert.equal((await process.state()).lagMs, 0)
  })

  test('subscriptions can be listed for one topic', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'one' })
    await process.topic({ topic: 'other' })
    await process.subscription({ topic: 'one', subscription: 'a' })
    await process.subscription({ topic: 'other', subscription: 'b' })
    const names = async (topic?: string) =>
      (await process.admin.subscriptions(topic)).map(({ subscription }) => subscription).toSorted()
    assert.deepEqual(await names(), ['a', 'b'])
    assert.deepEqual(await names('one'), ['a'])
    await assert.rejects(process.admin.subscriptions('unheard-of'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
  })

  test('consumers are the sessions that have opened a source', async (world) => {
    const [worker, publisher] = [await world.process(), await world.process()]
    await worker.topic()
    await worker.subscribe()
    const consumers = await publisher.admin.consumers()
    assert.equal(consumers.length, 1)
    assert.deepEqual(consumers[0]?.subscriptions, [HERE])
    assert.ok(consumers[0].leaseUntilMs > world.clock.now())
    assert.ok(consumers[0].leaseUntilMs <= world.clock.now() + LEASE_MS)
    assert.ok(consumers[0].host.length > 0 && consumers[0].pid > 0)
    await worker.close()
    assert.deepEqual(await publisher.admin.consumers(), [])
  })

  test('a dead consumer is listed until its session is given up', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.subscribe()
    await doomed.crash()
    assert.equal((await survivor.admin.consumers()).length, 1)
    await world.outliveLeases()
    await world.eventually(async () => assert.deepEqual(await survivor.admin.consumers(), []))
  })

  test('peek reads without taking', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription()
    await process.publish(['a', 'b'])
    await process.publish(['c', 'd'])
    const peeked = await process.admin.peek(TOPIC, { partition: 0, fromOffset: 1, limit: 2 })
    assert.deepEqual(
      peeked.map(({ message }) => [message.offset, message.event.data]),
      [
        [1, 'b'],
        [2, 'c'],
      ],
    )
    assert.deepEqual(await process.admin.peek(TOPIC, { partition: 0, fromOffset: 4, limit: 2 }), [])
    assert.equal((await process.state()).backlog, 4)
    await assert.rejects(process.admin.peek('unheard-of', { partition: 0, fromOffset: 0, limit: 1 }), {
      code: 'POSTHORN_TOPIC_NOT_FOUND',
    })
  })

  test('a sound store has nothing wrong with it, in the middle of work', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 2 })
    const source = await process.subscribe()
    for (let number = 0; number < 10; number++) await process.publish([number], { key: `key-${number}` })
    await source.retry(await source.pull({ messagesMax: 2 }), world.clock.now())
    await source.pull({ messagesMax: 2 })
    assert.deepEqual(await process.admin.checkIntegrity(), [])
  })

  test('every call names the subscription that it cannot find', async (world) => {
    const process = await world.process()
    await process.topic()
    const missing = { topic: TOPIC, subscription: 'unheard-of' }
    const code = { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' }
    await assert.rejects(process.admin.pause(missing), code)
    await assert.rejects(process.admin.resume(missing), code)
    await assert.rejects(process.admin.redrive(missing, {}), code)
    await assert.rejects(process.admin.deadLetters(missing, { limit: 1 }), code)
    await assert.rejects(process.admin.deleteDeadLetters(missing), code)
    await assert.rejects(process.admin.deleteSubscription(missing), code)
    await assert.rejects(process.admin.deleteTopic('unheard-of'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
  })

  test('all processes see the same', async (world) => {
    const [one, other] = [await world.process(), await world.process()]
    await one.topic()
    const source = await one.subscribe()
    await one.publish(['a', 'b'])
    assert.deepEqual(dataOf([await source.pullOne()]), ['a'])
    assert.deepEqual(await other.state(), await one.state())
    assert.deepEqual(await other.topicState(), await one.topicState())
  })
}
