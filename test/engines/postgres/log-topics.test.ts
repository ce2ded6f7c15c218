import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { StartPosition } from '../../../src/engine.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { type LogWorld, openWorld, openWorlds, TOPIC } from './log-world.ts'

/** Where a subscription stands, by partition. */
async function cursors(world: LogWorld, subscription: string): Promise<Record<string, number>> {
  const key = await world.topics.findSubscription({ topic: TOPIC, subscription })
  return world.turns.run(key, async ({ state }) => Object.fromEntries(state.cursors))
}

describe('topics and subscriptions in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('processes that make a topic at once make one', async (context) => {
    const worlds = await openWorlds(context, 3)
    const ids = await Promise.all(worlds.map((world) => world.ensure({ partitions: 3 })))
    assert.equal(new Set(ids).size, 1)
    assert.deepEqual((await worlds[0]!.query('SELECT FROM @.partitions')).length, 3)
  })

  test('what may change is overwritten, and the rest is a conflict', async (context) => {
    const world = await openWorld(context)
    await world.ensure()
    await world.ensure({ maxBacklog: 7, deduplicationWindowMs: 9 })
    assert.partialDeepStrictEqual(await world.topics.find(TOPIC), {
      maxBacklog: 7,
      deduplicationWindowMs: 9,
      maxBytes: null,
    })
    await world.ensure()
    assert.equal((await world.topics.find(TOPIC)).maxBacklog, null)
    await assert.rejects(world.ensure({ partitions: 2 }), { code: 'POSTHORN_TOPIC_CONFLICT' })
    await assert.rejects(world.ensure({ kind: 'queue' }), { code: 'POSTHORN_TOPIC_CONFLICT' })
  })

  test('the first subscription gets what was there, later ones what comes', async (context) => {
    const world = await openWorld(context)
    await world.ensure()
    await world.publish([world.message(1), world.message(2)])
    await world.subscribe('first')
    await world.subscribe('later')
    assert.deepEqual([await cursors(world, 'first'), await cursors(world, 'later')], [{ 0: 0 }, { 0: 2 }])
  })

  test('one starts where it is told to, in the partitions that are meant', async (context) => {
    const world = await openWorld(context)
    await world.ensure({ partitions: 2 })
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      const nowMs = world.clock.now()
      await world.publish([world.message(key, { key }), world.message(`${key}2`, { key, timeMs: nowMs + 5 })])
      await world.clock.advance(10)
    }
    const topicId = (await world.topics.find(TOPIC)).topicId
    const timeMs = world.clock.now() - 25
    const starts: Record<string, StartPosition> = {
      time: { timeMs },
      future: { timeMs: world.clock.now() + 1 },
      offset: { offset: 3, partition: 1 },
      beyond: { offset: 1_000 },
      earliest: { at: 'earliest' },
    }
    const found: Record<string, Record<string, number>> = {}
    for (const [subscription, start] of Object.entries(starts)) {
      await world.topics.ensureSubscription({
        topic: TOPIC,
        subscription,
        start,
        ordered: false,
        maxCrashes: 3,
        maxParked: 9,
      })
      found[subscription] = await cursors(world, subscription)
    }
    const ends = [(await world.ends(topicId, 0))[1]!, (await world.ends(topicId, 1))[1]!]
    const times = await Promise.all([0, 1].map((partition) => firstAt(world, topicId, partition, timeMs)))
    assert.deepEqual(found, {
      time: { 0: times[0]!, 1: times[1]! },
      future: { 0: ends[0]!, 1: ends[1]! },
      offset: { 0: ends[0]!, 1: Math.min(3, ends[1]!) },
      beyond: { 0: ends[0]!, 1: ends[1]! },
      earliest: { 0: 0, 1: 0 },
    })
  })

  test('nothing that is published beside a new subscription is lost to it', async (context) => {
    const [world, publisher] = await openWorlds(context, 2)
    const topicId = await world!.ensure()
    const published: number[] = []
    let subscribed = false
    const publishing = (async () => {
      while (!subscribed) published.push((await publisher!.publish([publisher!.message('x')]))[0]!.offset!)
    })()
    await world!.subscribe('first')
    await world!.subscribe('second')
    const before = (await world!.ends(topicId))[1]!
    subscribed = true
    await publishing
    assert.deepEqual(await cursors(world!, 'first'), { 0: 0 })
    assert.ok((await cursors(world!, 'second'))[0]! <= before)
  })

  test('an existing one keeps its position, and takes over the rest', async (context) => {
    const world = await openWorld(context)
    await world.ensure()
    await world.subscribe('mail', true)
    await world.settleUpTo(5)
    const key = await world.topics.findSubscription({ topic: TOPIC, subscription: 'mail' })
    await world.turns.run(key, async ({ state }) => void state.owners.set(0, { source: 's/1', announced: true }))
    await world.topics.ensureSubscription({
      topic: TOPIC,
      subscription: 'mail',
      ordered: false,
      maxCrashes: 9,
      maxParked: 8,
    })
    await world.turns.run(key, async ({ state, subscription }) => {
      assert.partialDeepStrictEqual(subscription, { ordered: false, maxCrashes: 9, maxParked: 8 })
      assert.equal(state.owners.size, 0)
    })
    assert.deepEqual(await cursors(world, 'mail'), { 0: 5 })
  })

  test('a queue has one, and what is not there is named', async (context) => {
    const worlds = await openWorlds(context, 2)
    const world = worlds[0]!
    await assert.rejects(world.subscribe(), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await assert.rejects(world.topics.find('x'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await world.ensure({ kind: 'queue' })
    const missing = world.topics.findSubscription({ topic: TOPIC, subscription: 'mail' })
    await assert.rejects(missing, { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
    await Promise.all(worlds.map((each) => each.subscribe()))
    await assert.rejects(world.subscribe('other'), { code: 'POSTHORN_QUEUE_SUBSCRIPTION' })
  })
})

/** The first offset of that time or later, by looking at every message. */
async function firstAt(world: LogWorld, topicId: number, partition: number, timeMs: number): Promise<number> {
  const [, to] = await world.ends(topicId, partition)
  const { messages } = await world.batches.read(world.database, [{ topicId, partition, from: 0, to: to! }])
  return messages[0]!.find(({ event }) => Date.parse(event.time) >= timeMs)?.offset ?? to!
}
