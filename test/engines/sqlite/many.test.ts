/** Many of everything, and large ones. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Bench, coded, dataOf, eventually, HERE, newFile, SUBSCRIPTION, sql, TOPIC } from './bench.ts'

const numbers = (count: number) => Array.from({ length: count }, (_, number) => number)

describe('many', { concurrency: 2 }, () => {
  test('64 subscriptions each get everything, in order', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const names = numbers(64).map((number) => `reader-${number}`)
    for (const subscription of names) await bench.subscription({ subscription })
    const readers = await Promise.all(names.map((subscription) => bench.source({ subscription })))
    const taking = readers.map((reader) => reader.take(200))
    for (const start of [0, 50, 100, 150]) await bench.publish(numbers(50).map((number) => start + number))
    for (const taken of await Promise.all(taking)) assert.deepEqual(taken, numbers(200))
  })

  test('messages given back together take one row for each run of them', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(numbers(100))
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const exceptions = numbers(100)
      .filter((offset) => offset !== 50)
      .map((offset) => ({ offset, kind: 'release' as const }))
    await reader.source.settle([{ lease: grant!.lease, acked: [50, 51], exceptions: exceptions.reverse() }])
    const rows = sql(file, 'SELECT from_offset AS a, to_offset AS b FROM posthorn_leases ORDER BY a')
    assert.deepEqual(
      rows.map(({ a, b }) => [a, b]),
      [
        [0, 50],
        [51, 100],
      ],
    )
    assert.equal((await reader.take(99)).length, 99)
  })

  test('16 partitions: a key keeps its partition and its order, and every partition gets its turn', async (context) => {
    const bench = await Bench.make(context, newFile(context), { partitions: 16 })
    for (let round = 0; round < 5; round++) {
      for (const key of numbers(40)) await bench.publish([{ key, round }], { key: `key-${key}` })
    }
    const reader = await bench.source()
    const partitions = new Map<number, number>()
    const rounds = new Map<number, number>()
    for (let seen = 0; seen < 200; ) {
      const grants = await reader.pull(7)
      for (const { partition, messages } of grants) {
        for (const { event } of messages) {
          const { key, round } = event.data as { key: number; round: number }
          assert.equal(partitions.get(key) ?? partition, partition)
          assert.equal(rounds.get(key) ?? 0, round)
          partitions.set(key, partition)
          rounds.set(key, round + 1)
          seen++
        }
      }
      await reader.ack(grants)
    }
    assert.ok(new Set(partitions.values()).size > 8)
  })

  test('100 topics in one file, published to at once', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const topics = numbers(100).map((number) => `topic-${number}`)
    const retention = { maxAgeMs: 1e9, dropUnread: false }
    await Promise.all(
      topics.map((topic) =>
        bench.engine.ensureTopic({ topic, kind: 'topic', partitions: 1, deduplicationWindowMs: 1_000, retention }),
      ),
    )
    await Promise.all(topics.map((topic) => bench.subscription({ topic })))
    await Promise.all(topics.map((topic) => bench.publish([topic], { topic })))
    for (const topic of topics) assert.deepEqual(await (await bench.source({ topic })).take(1), [topic])
  })

  test('large messages and long ids, at once and delayed', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const large = 'ä'.repeat(2 ** 19)
    const id = 'i'.repeat(10_000)
    await bench.publish([large], { id })
    assert.equal((await bench.publish([large], { id }))[0]?.duplicate, true)
    const deliverAtMs = Date.now() + 50
    for (let count = 0; count < 8; count++) await bench.publish([large], { deliverAtMs })
    const reader = await bench.source()
    for (const data of await reader.take(9)) assert.ok(data === large)
    const sizes = (await bench.engine.admin.topics())[0]!
    assert.equal(sizes.messages, 9)
  })

  test('a thousand delayed messages that fall due together all come', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const deliverAtMs = Date.now() + 100
    await Promise.all(numbers(10).map(() => bench.publish(numbers(100), { deliverAtMs })))
    assert.equal((await (await bench.source()).take(1_000)).length, 1_000)
    assert.equal((await bench.engine.admin.topics())[0]?.delayed, 0)
  })

  test('retention deletes a thousand batches, and only those that everybody has settled', async (context) => {
    const bench = await Bench.make(context, newFile(context), { retention: { maxAgeMs: 1, dropUnread: false } })
    for (let round = 0; round < 10; round++) {
      await Promise.all(numbers(100).map((number) => bench.publish([number])))
    }
    await bench.publish(['kept'])
    const reader = await bench.source()
    for (let left = 1_000; left > 0; ) {
      const grants = await reader.pull(left)
      left -= dataOf(grants).length
      await reader.ack(grants)
    }
    await eventually(async () => {
      await bench.engine.admin.applyRetention()
      const [topic] = await bench.engine.admin.topics()
      assert.equal(topic?.messages, 1)
    })
    assert.deepEqual(await reader.take(1), ['kept'])
  })

  test('a backlog at its limit refuses, and takes more once it was read', async (context) => {
    const bench = await Bench.make(context, newFile(context), { maxBacklog: 3 })
    await bench.publish([1, 2, 3])
    await assert.rejects(bench.publish([4]), coded('POSTHORN_BACKLOG_FULL'))
    await (await bench.source()).take(3)
    await bench.publish([4])
  })

  test('a redrive at a rate spreads the messages over time', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(numbers(10))
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
    const exceptions = numbers(10).map((offset) => ({ offset, kind: 'dead', reason: 'attempts', failure }) as const)
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    assert.equal(await bench.engine.admin.redrive(HERE, { perSecond: 20 }), 10)
    const due = sql(file, 'SELECT due_at_ms AS due FROM posthorn_retries ORDER BY due').map((row) => Number(row.due))
    assert.deepEqual(
      due.map((dueMs) => dueMs - due[0]!),
      numbers(10).map((number) => number * 50),
    )
    assert.deepEqual((await reader.take(10)).toSorted(), numbers(10))
  })

  test('the view shows single messages to plain SQL', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    const texts = [`it's "quoted"`, 'naïve ☃ 日本', 'back\\slash\n']
    await bench.publish(texts, { key: `O'Brien` })
    await bench.publish([{ deep: { nothing: null, list: [1, null] } }, null])
    const rows = sql(file, 'SELECT * FROM posthorn_messages ORDER BY offset')
    assert.deepEqual(
      rows
        .slice(0, 3)
        .map(({ topic, partition, offset, type, subject, data }) => [topic, partition, offset, type, subject, data]),
      texts.map((text, offset) => [TOPIC, 0, offset, TOPIC, `O'Brien`, text]),
    )
    assert.deepEqual(JSON.parse(String(rows[3]!.data)), { deep: { nothing: null, list: [1, null] } })
    const peeked = await bench.engine.admin.peek(TOPIC, { partition: 0, fromOffset: 3, limit: 2 })
    assert.equal(peeked[0]!.message.event.specversion, '1.0')
    assert.deepEqual(
      rows.slice(3).map(({ event }) => JSON.parse(String(event))),
      peeked.map(({ message }) => message.event),
    )
  })

  test('an integrity check does not need the writer thread, nor hold it up', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['a'])
    using database = new DatabaseSync(file)
    database.exec('BEGIN IMMEDIATE')
    const publishing = bench.publish(['b'])
    // By the next turn it has been handed to the writer thread, which now waits for the lock.
    await setImmediate()
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), [])
    database.exec('ROLLBACK')
    await publishing
  })

  test('an integrity check after the connection was closed is refused', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    await bench.engine.close()
    await assert.rejects(bench.engine.admin.checkIntegrity(), coded('POSTHORN_CLOSED'))
  })

  test('two engines never use the same lease id', async (context) => {
    const file = newFile(context)
    const benches = [await Bench.make(context, file), await Bench.open(context, file), await Bench.open(context, file)]
    const readers = await Promise.all(benches.map((bench) => bench.source()))
    const seen = new Set<number>()
    for (let round = 0; round < 30; round++) {
      await benches[0]!.publish([round])
      const [grant] = await readers[round % 3]!.pull()
      assert.ok(!seen.has(grant!.lease))
      seen.add(grant!.lease)
      await readers[round % 3]!.ack([grant!])
    }
  })

  test("a queue's rows are used again, and never show old content", async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { kind: 'queue' })
    const reader = await bench.source()
    const rows = new Set<unknown>()
    for (let round = 0; round < 20; round++) {
      await bench.publish([round])
      for (const { batch_id } of sql(file, 'SELECT batch_id FROM posthorn_batches')) rows.add(batch_id)
      const [grant] = await reader.pull()
      const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
      const exceptions = [{ offset: round, kind: 'retry', dueAtMs: 1, failure }] as const
      await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
      assert.deepEqual(await reader.take(1), [round])
    }
    assert.ok(rows.size < 20, 'the rows were not used again, so this tests nothing')
  })

  test('one consumer with room for one message serves two subscriptions, retries and all partitions', async (context) => {
    const bench = await Bench.make(context, newFile(context), { partitions: 2 })
    await bench.subscription({ subscription: 'other' })
    for (const key of numbers(60)) await bench.publish([key], { key: `key-${key}` })
    const readers = [await bench.source({ subscription: SUBSCRIPTION }), await bench.source({ subscription: 'other' })]
    const seen = readers.map(() => new Set<number>())
    for (let round = 0; round < 20; round++) {
      for (const [place, reader] of readers.entries()) {
        const grants = await reader.pull(1)
        assert.equal(dataOf(grants).length, 1)
        seen[place]!.add(grants[0]!.partition)
        await reader.ack(grants)
      }
    }
    for (const partitions of seen) assert.equal(partitions.size, 2)
  })

  test('bytesMax bounds what all partitions give together', async (context) => {
    const bench = await Bench.make(context, newFile(context), { partitions: 8 })
    for (const key of numbers(64)) await bench.publish(['x'.repeat(10_000)], { key: `key-${key}` })
    const { source } = await bench.source()
    const grants = await source.pull({ messagesMax: 1_000, bytesMax: 40_000 }, AbortSignal.timeout(10_000))
    assert.ok(dataOf(grants).length <= 5, `${dataOf(grants).length} messages`)
  })
})
