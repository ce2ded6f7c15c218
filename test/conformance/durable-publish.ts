/** Guarantee 1: when `append` resolves, its messages are stored; when it refuses, none of the group is. */
import assert from 'node:assert/strict'
import { assertCode } from './assertions.ts'
import { dataOf, newGroup, newMessage } from './messages.ts'
import type { Guarantee } from './suite.ts'

export const durablePublish: Guarantee = (test, { capabilities }) => {
  test('a message comes out as it went in', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const publishedAtMs = world.clock.now()
    await process.publish([{ user: 'u1', amounts: [1, 2.5, null] }], { key: 'u1', id: 'order-1' })
    const { messages } = await source.pullOne()
    assert.deepEqual(messages[0]?.event, {
      specversion: '1.0',
      id: 'order-1',
      source: '/conformance',
      type: 'events',
      time: new Date(publishedAtMs).toISOString(),
      subject: 'u1',
      datacontenttype: 'application/json',
      data: { user: 'u1', amounts: [1, 2.5, null] },
    })
  })

  test('what is delivered is deeply frozen', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish([{ nested: { list: [{}] } }])
    const { event } = (await source.pullOne()).messages[0]!
    const data = event.data as { nested: { list: object[] } }
    for (const part of [event, data, data.nested, data.nested.list, data.nested.list[0]]) {
      assert.ok(Object.isFrozen(part))
    }
  })

  test('any Unicode text survives: astral characters, NUL, lone surrogates, quotes, line separators', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const texts = [
      '😀 grüße 漢字',
      'a\u0000b\u0000',
      '\ud800',
      '"\\\n\r\t',
      '\u2028\u2029',
      '',
      '\u0000',
      "'; DROP TABLE x; --",
    ]
    await process.publish(texts, { key: 'k\u0000e😀y' })
    const grants = await source.pullAll()
    assert.deepEqual(dataOf(grants), texts)
    assert.equal(grants[0]?.messages[0]?.event.subject, 'k\u0000e😀y')
  })

  test('an append stores all of its groups, in topics of their own, with one outcome each, in order', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'first' })
    await process.topic({ topic: 'second' })
    const nowMs = world.clock.now()
    const outcomes = await process.engine.append([
      newGroup([newMessage('a', nowMs), newMessage('b', nowMs)], 'first'),
      newGroup([], 'first'),
      newGroup([newMessage('c', nowMs)], 'second'),
      newGroup([newMessage('d', nowMs)], 'first'),
    ])
    const offsets = outcomes.map((outcome) => 'receipts' in outcome && outcome.receipts.map(({ offset }) => offset))
    assert.deepEqual(offsets, [[0, 1], [], [0], [2]])
  })

  test('offsets rise by one within a partition, in the order of the group, whatever its messages ask for', async (world) => {
    const process = await world.process()
    await process.topic()
    const nowMs = world.clock.now()
    const [outcome] = await process.engine.append([
      newGroup([newMessage(0, nowMs), newMessage(1, nowMs, { id: 'given' }), newMessage(2, nowMs)]),
    ])
    assert.ok(outcome && 'receipts' in outcome)
    assert.deepEqual(outcome.receipts, [
      { duplicate: false, partition: 0, offset: 0 },
      { duplicate: false, partition: 0, offset: 1 },
      { duplicate: false, partition: 0, offset: 2 },
    ])
    assert.deepEqual(await process.publish([3]), [{ duplicate: false, partition: 0, offset: 3 }])
  })

  test('an append of nothing is nothing', async (world) => {
    const process = await world.process()
    assert.deepEqual(await process.engine.append([]), [])
  })

  test('equal keys share a partition, and different keys use several', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 8 })
    const keys = Array.from({ length: 64 }, (_, number) => `user-${number}`)
    const places = await Promise.all(keys.map(async (key) => (await process.publish([key], { key }))[0]?.partition))
    const again = await Promise.all(keys.map(async (key) => (await process.publish([key], { key }))[0]?.partition))
    assert.deepEqual(again, places)
    assert.ok(new Set(places).size > 4)
  })

  test('a process that has not made the topic itself finds the same partitions', async (world) => {
    const [maker, other] = [await world.process(), await world.process()]
    await maker.topic({ partitions: 8 })
    for (const key of ['user-1', 'user-2', 'user-3', 'user-4', 'user-5', 'user-6']) {
      const [receipt] = await maker.publish(['a'], { key })
      assert.equal((await other.publish(['b'], { key }))[0]?.partition, receipt?.partition)
    }
  })

  test('messages without a key that are appended together stay together, and later ones go elsewhere', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 4 })
    const used = new Set<number | undefined>()
    for (let round = 0; round < 16; round++) {
      const partitions = new Set((await process.publish([1, 2, 3])).map(({ partition }) => partition))
      assert.equal(partitions.size, 1)
      used.add([...partitions][0])
    }
    assert.ok(used.size > 1)
  })

  test('ten thousand messages in one append arrive in order', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const numbers = Array.from({ length: 10_000 }, (_, number) => number)
    await process.publish(numbers)
    assert.deepEqual(dataOf(await source.pullAll()), numbers)
  })

  test('appends that run side by side are all stored, each message once', async (world) => {
    const processes = [await world.process(), await world.process()]
    await processes[0]!.topic()
    await processes[0]!.subscription()
    const numbers = Array.from({ length: 200 }, (_, number) => number)
    const receipts = await Promise.all(numbers.map((number) => processes[number % 2]!.publish([number])))
    const offsets = receipts.map(([receipt]) => receipt!.offset!)
    assert.deepEqual(
      offsets.toSorted((one, other) => one - other),
      numbers,
    )
    const delivered = dataOf(await (await processes[0]!.source()).pullAll()) as number[]
    assert.deepEqual(
      delivered.toSorted((one, other) => one - other),
      numbers,
    )
  })

  test('an unknown topic refuses its own group alone', async (world) => {
    const process = await world.process()
    await process.topic()
    const nowMs = world.clock.now()
    const outcomes = await process.engine.append([
      newGroup([newMessage('lost', nowMs)], 'unheard-of'),
      newGroup([newMessage('stored', nowMs)]),
    ])
    assert.ok(outcomes[0] && 'refused' in outcomes[0])
    assertCode(outcomes[0].refused, 'POSTHORN_TOPIC_NOT_FOUND')
    assert.deepEqual(outcomes[1], { receipts: [{ duplicate: false, partition: 0, offset: 0 }] })
  })

  test('a closed engine rejects, and stores nothing', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.close()
    await process.close()
    await assert.rejects(process.publish(['late']), { code: 'POSTHORN_CLOSED' })
    const other = await world.process()
    await other.topic()
    assert.equal((await other.topicState()).messages, 0)
  })

  test(
    'what was stored is there after every process has died',
    async (world) => {
      const process = await world.process()
      await process.topic()
      await process.subscription()
      await process.publish(['kept'])
      await process.crash()
      const source = await (await world.process()).source()
      assert.deepEqual(dataOf(await source.pull()), ['kept'])
    },
    capabilities.durable ? undefined : 'the engine declares that it is not durable',
  )

  test(
    'an engine that cannot join a transaction says so',
    async (world) => {
      const process = await world.process()
      await process.topic()
      await assert.rejects(process.engine.appendIn({}, newGroup([])), { code: 'POSTHORN_UNSUPPORTED' })
    },
    capabilities.transactionalAppend ? 'the engine can, and tests it with connections of its own kind' : undefined,
  )
}
