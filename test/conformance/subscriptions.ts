/** Topics and subscriptions come into being, and where a subscription starts. */
import assert from 'node:assert/strict'
import type { SubscriptionConfig } from '../../src/engine.ts'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'

export const subscriptions: Guarantee = (test) => {
  test('making a topic again changes what may change', async (world) => {
    const process = await world.process()
    await process.topic({ deduplicationWindowMs: 60_000 })
    await process.publish(['a'], { id: 'order-1' })
    await process.topic({ deduplicationWindowMs: 1 })
    assert.equal((await process.topicState()).messages, 1)
    await process.publish(['b'], { id: 'order-2' })
    await world.advance(1)
    assert.equal((await process.publish(['c'], { id: 'order-2' }))[0]?.duplicate, false)
  })

  test('another kind or number of partitions is a conflict', async (world) => {
    const process = await world.process()
    await process.topic()
    await assert.rejects(process.topic({ partitions: 2 }), { code: 'POSTHORN_TOPIC_CONFLICT' })
    await assert.rejects(process.topic({ kind: 'queue' }), { code: 'POSTHORN_TOPIC_CONFLICT' })
  })

  test('a subscription needs its topic, and a source needs both', async (world) => {
    const process = await world.process()
    await assert.rejects(process.subscription(), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await assert.rejects(process.source(), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await process.topic()
    await assert.rejects(process.source(), { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
  })

  test('a queue has one subscription', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    await process.subscription({ subscription: 'worker' })
    await process.subscription({ subscription: 'worker' })
    await assert.rejects(process.subscription({ subscription: 'second' }), { code: 'POSTHORN_QUEUE_SUBSCRIPTION' })
  })

  test('the first subscription of a topic gets what was published before it', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['early'])
    assert.deepEqual(dataOf(await (await process.subscribe()).pull()), ['early'])
  })

  test('later subscriptions start at the latest message', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription({ subscription: 'first' })
    await process.publish(['early'])
    const second = await process.subscribe({ subscription: 'second' })
    await process.publish(['late'])
    assert.deepEqual(dataOf(await second.pullAll()), ['late'])
  })

  test('a topic that had a subscription once is not new, even when that one is gone', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription({ subscription: 'first' })
    await process.admin.deleteSubscription({ topic: TOPIC, subscription: 'first' })
    await process.publish(['between'])
    assert.deepEqual(await (await process.subscribe({ subscription: 'second' })).pullNow(), [])
  })

  test('an existing subscription keeps its position, wherever it is told to start', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['a', 'b'])
    await source.ack([await source.pullOne()])
    await process.subscription({ start: { at: 'earliest' } })
    await process.subscription({ start: { at: 'latest' } })
    assert.deepEqual(dataOf(await source.pullAll()), ['b'])
  })

  test('start: earliest, latest', async (world) => {
    const process = await threeSeconds(await world.process())
    assert.deepEqual(await startedAt(process, { at: 'earliest' }), ['one', 'two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { at: 'latest' }), ['new'])
  })

  test('start: an offset, which is bounded by what there is', async (world) => {
    const process = await threeSeconds(await world.process())
    assert.deepEqual(await startedAt(process, { offset: 1 }), ['two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { offset: 2, partition: 0 }), ['three', 'new'])
    assert.deepEqual(await startedAt(process, { offset: -5 }), ['one', 'two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { offset: 1_000 }), ['new'])
  })

  test('start: an offset of one partition, and at the latest message of the others', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 3 })
    for (let number = 0; number < 30; number++) await process.publish([number], { key: `key-${number}` })
    const { partitions } = await process.topicState()
    assert.ok(partitions.every(({ nextOffset }) => nextOffset > 1))
    await process.subscription({ start: { offset: 1, partition: 0 } })
    assert.deepEqual(
      (await process.state()).positions,
      partitions.map(({ partition, nextOffset }) => ({ partition, offset: partition === 0 ? 1 : nextOffset })),
    )
  })

  test('start: a time, at the first message of that time or later', async (world) => {
    const firstMs = world.clock.now()
    const process = await threeSeconds(await world.process())
    assert.deepEqual(await startedAt(process, { timeMs: firstMs - 1 }), ['one', 'two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { timeMs: firstMs }), ['one', 'two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { timeMs: firstMs + 1 }), ['two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { timeMs: firstMs + 1_000 }), ['two', 'three', 'new'])
    assert.deepEqual(await startedAt(process, { timeMs: firstMs + 60_000 }), ['new'])
  })

  test('a deleted subscription is gone with all that it knew; made again, it starts anew', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['dead', 'failing', 'new'])
    await source.dead([await source.pullOne()])
    await source.retry([await source.pullOne()], world.clock.now())
    await source.close()
    await process.admin.deleteSubscription({ topic: TOPIC, subscription: SUBSCRIPTION })
    assert.deepEqual(await process.admin.subscriptions(), [])
    await process.subscription()
    assert.partialDeepStrictEqual(await process.state(), { backlog: 0, retrying: 0, deadLetters: 0, leased: 0 })
  })

  test('deleting a subscription ends the waiting pull of its open source, and later ones', async (world) => {
    const [worker, operator] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    const waiting = assert.rejects(source.pull(), { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
    await worker.roundTrip()
    await operator.admin.deleteSubscription({ topic: TOPIC, subscription: SUBSCRIPTION })
    await waiting
    await assert.rejects(source.pull(), { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
  })

  test('a lease of a deleted subscription is fenced', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    const grants = await source.pull()
    await process.admin.deleteSubscription({ topic: TOPIC, subscription: SUBSCRIPTION })
    assert.deepEqual(await source.ack(grants), [grants[0]!.lease])
    await source.close()
  })

  test('a subscription made anew does not serve the sources of the one that was deleted', async (world) => {
    const process = await world.process()
    await process.topic()
    const old = await process.subscribe()
    await process.admin.deleteSubscription({ topic: TOPIC, subscription: SUBSCRIPTION })
    await process.subscription()
    await process.publish(['a'])
    await assert.rejects(old.pull(), { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
    assert.deepEqual(dataOf(await (await process.source()).pull()), ['a'])
  })

  test('a deleted topic is gone with its messages and subscriptions; made again, it is empty', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription()
    await process.publish(['a'])
    await process.admin.deleteTopic(TOPIC)
    assert.deepEqual(await process.admin.topics(), [])
    assert.deepEqual(await process.admin.subscriptions(), [])
    await process.topic({ partitions: 2 })
    assert.deepEqual(dataOf(await (await process.subscribe()).pullNow()), [])
  })
}

/** A topic with three messages, a second apart, which is not new any more. */
async function threeSeconds(process: TestProcess): Promise<TestProcess> {
  await process.topic()
  await process.subscription({ subscription: 'opener' })
  for (const data of ['one', 'two', 'three']) {
    await process.publish([data])
    await process.world.advance(1_000)
  }
  return process
}

let subscriptionsMade = 0

/** What a subscription with this start gets, up to a message that is published after it was made. */
async function startedAt(process: TestProcess, start: SubscriptionConfig['start'] & object): Promise<unknown[]> {
  subscriptionsMade++
  const source = await process.subscribe({ subscription: `reader-${subscriptionsMade}`, start })
  const nextOffset = (await process.topicState()).partitions[0]!.nextOffset
  await process.publish(['new'])
  const grants = await source.drain()
  const published = ['one', 'two', 'three']
  return grants.flatMap(({ messages }) =>
    messages.filter(({ offset }) => offset < published.length || offset === nextOffset).map(({ event }) => event.data),
  )
}
