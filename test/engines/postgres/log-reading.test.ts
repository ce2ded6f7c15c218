import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { batchChecksum } from '../../../src/engines/checksum.ts'
import type { Queryable } from '../../../src/engines/postgres/database/statement.ts'
import { BatchReader } from '../../../src/engines/postgres/log/batches.ts'
import { DecodedBatches } from '../../../src/engines/postgres/log/decoded-batches.ts'
import { LogIndex } from '../../../src/engines/postgres/log/log-index.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { dataOf, type LogWorld, openWorld, SHARED } from './log-world.ts'

const NOWHERE: Queryable = {
  rows: () => assert.fail('it asked the server'),
  run: () => assert.fail('it asked the server'),
}

/** Stores batches of so many messages, whose data are their offsets. */
async function storeBatches(world: LogWorld, counts: readonly number[]): Promise<number> {
  const topicId = await world.ensure()
  let offset = 0
  for (const count of counts) await world.publish(Array.from({ length: count }, () => world.message(offset++)))
  return topicId
}

/** Of the second of the batches that are damaged. */
function checksumOf(data: string): number {
  return batchChecksum({ topicId: 1, partition: 0, baseOffset: 2, count: 3, shared: SHARED, data })
}

describe('reading batches in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('ranges begin and end anywhere, and what was read once is not asked for again', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [3, 1, 4])
    const reader = new BatchReader()
    const ranges = [
      { topicId, partition: 0, from: 1, to: 5 },
      { topicId, partition: 0, from: 2, to: 3 },
      { topicId, partition: 0, from: 0, to: 8 },
      { topicId, partition: 0, from: 8, to: 12 },
    ]
    const expected = [[1, 2, 3, 4], [2], [0, 1, 2, 3, 4, 5, 6, 7], []]
    assert.deepEqual((await reader.read(world.database, ranges)).messages.map(dataOf), expected)
    const again = await reader.read(NOWHERE, ranges.slice(0, 3))
    assert.deepEqual(again.messages.map(dataOf), expected.slice(0, 3))
    assert.ok(Object.isFrozen(again.messages[0]![0]!.event))
  })

  test('what the process has stored itself, of a topic that it reads, is not asked for', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [2])
    const reader = new BatchReader()
    const read = (rows: Queryable, from: number, to: number) => reader.read(rows, [{ topicId, partition: 0, from, to }])
    await read(world.database, 0, 2)
    await world.publish([world.message('mine')])
    reader.offer(world.stored.at(-1)!.batches)
    assert.deepEqual(dataOf((await read(NOWHERE, 2, 3)).messages[0]!), ['mine'])
  })

  test('what is kept is there even if what has to be fetched with it pushes it out', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [2, 2, 2])
    const reader = new BatchReader(new DecodedBatches(1))
    const ranges = [0, 2, 4].map((from) => ({ topicId, partition: 0, from, to: from + 2 }))
    await reader.read(world.database, ranges.slice(0, 1))
    const { messages } = await reader.read(world.database, ranges)
    assert.deepEqual(messages.map(dataOf), [
      [0, 1],
      [2, 3],
      [4, 5],
    ])
  })

  for (const [damage, change] of [
    ['a changed byte', `data = replace(data, '"data":3', '"data":9')`],
    ['text that is no JSON', `data = 'x', checksum = ${checksumOf('x')}`],
    ['another count', 'count = 4'],
  ]) {
    test(`${damage} costs its own batch, and is reported`, async (context) => {
      const world = await openWorld(context)
      const topicId = await storeBatches(world, [2, 3, 2])
      await world.query(`UPDATE @.batches SET ${change} WHERE base_offset = 2`)
      const ranges = [{ topicId, partition: 0, from: 0, to: 4 }]
      const { messages, damaged } = await world.batches.read(world.database, ranges)
      assert.deepEqual(dataOf(messages[0]!), [0, 1])
      const [{ range, from, to, error }] = damaged as [(typeof damaged)[0]]
      assert.deepEqual([damaged.length, range, from, to], [1, 0, 2, 4])
      assert.equal(error.code, 'POSTHORN_BATCH_CORRUPT')
      assert.deepEqual(error.details, { topic: 'orders', partition: 0, from: 2, to: 3 })
      const rest = await world.batches.read(world.database, [{ topicId, partition: 0, from: 5, to: 7 }])
      assert.deepEqual([dataOf(rest.messages[0]!), rest.damaged], [[5, 6], []])
    })
  }

  test('what retention deleted is missing', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [2, 2])
    await world.query('DELETE FROM @.batches WHERE base_offset = 0')
    const { messages, damaged } = await world.batches.read(world.database, [{ topicId, partition: 0, from: 0, to: 4 }])
    assert.deepEqual([dataOf(messages[0]!), damaged], [[2, 3], []])
  })
})

describe('the index of the log in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('knows the ends and sizes of all partitions, also of lanes that began later', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [10, 10])
    const index = new LogIndex()
    const refresh = (from = 0) =>
      index.refresh(world.database, [{ topicId, generation: 0, from: new Map([[0, from]]) }])
    await refresh()
    assert.deepEqual([index.partitions(topicId), index.nextOffset(topicId, 0)], [[0], 20])
    const [all] = await world.query<{ bytes: number }>('SELECT sum(bytes)::int AS bytes FROM @.batches')
    assert.ok(Math.abs(index.bytesOf(topicId, 0, 0, 20) - all!.bytes) < 1e-6)
    await world.publish([world.message('urgent', { priority: 'high' }), world.message('more')])
    await refresh(20)
    assert.deepEqual(index.partitions(topicId), [0, 1])
    assert.deepEqual(
      [0, 1].map((partition) => index.nextOffset(topicId, partition)),
      [21, 1],
    )
  })

  test('reaches as far as the bytes do, over one message at least', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [10, 10])
    const index = new LogIndex()
    await index.refresh(world.database, [{ topicId, generation: 0, from: new Map() }])
    const size = index.bytesOf(topicId, 0, 0, 10) / 10
    assert.equal(index.reach(topicId, 0, 2, 20, 0), 3)
    assert.equal(index.reach(topicId, 0, 2, 20, size * 4), 6)
    assert.equal(index.reach(topicId, 0, 2, 20, 1e9), 20)
    assert.equal(index.reach(topicId, 0, 8, 20, size * 2 + 1), 11)
  })

  test('hears of what the process stores itself', async (context) => {
    const world = await openWorld(context)
    const topicId = await storeBatches(world, [1])
    const index = new LogIndex()
    await index.refresh(world.database, [{ topicId, generation: 0, from: new Map() }])
    await world.publish([world.message(1), world.message(2)])
    index.added(world.stored.at(-1)!.batches)
    assert.equal(index.nextOffset(topicId, 0), 3)
  })

  test('goes on from what it knows, however many batches there are, and wherever one begins', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await world.query(
      `INSERT INTO @.batches SELECT $1, 0, step * 2, 2, 0, 0, 100 + step, 0, '{}', '[]' FROM generate_series(0, 1999) step`,
      topicId,
    )
    const index = new LogIndex()
    const refresh = (from: number) =>
      index.refresh(world.database, [{ topicId, generation: 0, from: new Map([[0, from]]) }])
    for (const from of [3_001, 0, 900, 1_900, 2_900]) {
      await refresh(from)
      assert.equal(index.nextOffset(topicId, 0), 4_000)
      const size = 100 + Math.floor(from / 2)
      assert.equal(index.bytesOf(topicId, 0, from, from + 1), size / 2)
    }
  })
})
