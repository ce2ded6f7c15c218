/** Priorities: each has partitions of its own, which come into being with its first message. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { newGroup, newMessage } from '../../conformance/messages.ts'
import { Bench, coded, dataOf, eventually, HERE, newFile, sql, TOPIC, topicConfig } from './bench.ts'

const lanesOf = async (bench: Bench) => {
  const [topic] = await bench.engine.admin.topics()
  return topic!.partitions.map(({ partition, priority, nextOffset }) => [partition, priority, nextOffset])
}

describe('lanes', { concurrency: 2 }, () => {
  test('a lane begins with its first message, with as many partitions as the topic has', async (context) => {
    const bench = await Bench.make(context, newFile(context), { partitions: 2 })
    assert.deepEqual(await lanesOf(bench), [
      [0, 'normal', 0],
      [1, 'normal', 0],
    ])
    const [receipt] = await bench.publish(['a'], { key: 'k', priority: 'low' })
    const [normal] = await bench.publish(['b'], { key: 'k' })
    assert.equal(receipt!.partition, 4 + normal!.partition!, 'a key has the same place in each lane')
    const [high] = await bench.publish(['c'], { key: 'k', priority: 'high' })
    assert.equal(high!.partition, 2 + normal!.partition!)
    assert.deepEqual(
      (await lanesOf(bench)).map(([partition, priority]) => `${partition} ${priority}`),
      ['0 normal', '1 normal', '2 high', '3 high', '4 low', '5 low'],
    )
  })

  test('subscriptions get all of a lane that began after them, and what comes after them of an older one', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    await bench.subscription({ subscription: 'latest', start: { at: 'latest' } })
    await bench.publish(['a'], { priority: 'high' })
    await bench.subscription({ subscription: 'later', start: { at: 'latest' } })
    await bench.publish(['b'], { priority: 'high' })
    assert.deepEqual(await (await bench.source({ subscription: 'latest' })).take(2), ['a', 'b'])
    const later = await bench.source({ subscription: 'later' })
    assert.deepEqual(await later.take(1), ['b'])
    assert.deepEqual(dataOf(await later.pullNow()), [])
  })

  test('a delayed message enters its own lane', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    await bench.publish(['a'], { priority: 'low', deliverAtMs: Date.now() + 50 })
    const grants = await (await bench.source()).pull()
    assert.deepEqual([grants[0]!.partition, dataOf(grants)], [2, ['a']])
  })

  test('another process takes the lanes for what they are', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { partitions: 2 })
    const keys = ['a', 'b', 'c', 'd', 'e', 'f']
    const placesOf = async (publisher: Bench) =>
      Promise.all(keys.map(async (key) => (await publisher.publish([key], { key, priority: 'high' }))[0]!.partition))
    const places = await placesOf(bench)
    assert.deepEqual(new Set(places), new Set([2, 3]))
    assert.deepEqual(await placesOf(await Bench.open(context, file)), places)
  })

  test('all lanes count in the backlog, and its limit', async (context) => {
    const bench = await Bench.make(context, newFile(context), { maxBacklog: 3 })
    await bench.publish(['a'])
    await bench.publish(['b'], { priority: 'high' })
    await bench.publish(['c'], { priority: 'low' })
    assert.equal((await bench.state()).backlog, 3)
    await assert.rejects(bench.publish(['d'], { priority: 'high' }), coded('POSTHORN_BACKLOG_FULL'))
  })

  test('seek, purge and retention reach all lanes', async (context) => {
    const bench = await Bench.make(context, newFile(context), { retention: { maxAgeMs: 0, dropUnread: false } })
    const reader = await bench.source()
    const publishAll = async () => {
      for (const priority of [undefined, 'high', 'low'] as const) {
        await bench.publish([priority ?? 'normal'], priority && { priority })
      }
    }
    const everything = ['high', 'low', 'normal']
    await publishAll()
    assert.deepEqual((await reader.take(3)).toSorted(), everything)
    await bench.engine.admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual((await reader.take(3)).toSorted(), everything)
    await eventually(async () => {
      await bench.engine.admin.applyRetention()
      assert.equal((await bench.engine.admin.topics())[0]!.messages, 0)
    })
    await publishAll()
    assert.equal(await bench.engine.admin.purge(TOPIC), 3)
    assert.deepEqual(dataOf(await reader.pullNow()), [])
    assert.equal((await bench.state()).backlog, 0)
  })

  test('a queue deletes what is settled of every lane', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { kind: 'queue' })
    await bench.publish(['a'], { priority: 'high' })
    await bench.publish(['b'], { priority: 'low' })
    await (await bench.source()).take(2)
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_batches'), [])
  })

  test("in the user's transaction, a lane begins with the commit or not at all", async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    using database = new DatabaseSync(file)
    const append = () => bench.engine.appendIn(database, newGroup([newMessage('a', Date.now(), { priority: 'high' })]))
    database.exec('BEGIN')
    await append()
    database.exec('ROLLBACK')
    assert.deepEqual(await lanesOf(bench), [[0, 'normal', 0]])
    database.exec('BEGIN')
    assert.deepEqual(await append(), { receipts: [{ duplicate: false, partition: 1, offset: 0 }] })
    database.exec('COMMIT')
    assert.deepEqual(await (await bench.source()).take(1), ['a'])
  })

  test('a topic made anew with other partitions is not written to in the wrong lane', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { partitions: 1 })
    const other = await Bench.open(context, file)
    await bench.publish(['a'], { priority: 'high' })
    await other.engine.admin.deleteTopic(TOPIC)
    await other.engine.ensureTopic({ ...topicConfig, partitions: 4 })
    await assert.rejects(bench.publish(['b'], { priority: 'high' }), coded('POSTHORN_TOPIC_CONFLICT'))
    const [receipt] = await bench.publish(['b'], { priority: 'high' })
    assert.ok(receipt!.partition! >= 4)
  })

  test('a partition that a subscription has no cursor in is found by the integrity check', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['a'], { priority: 'high' })
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), [])
    sql(file, 'DELETE FROM posthorn_cursors WHERE partition = 1')
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), ['Subscription mail has no cursor in partition 1.'])
  })
})
