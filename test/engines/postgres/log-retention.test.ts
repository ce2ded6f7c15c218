import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { type LogWorld, openWorld, openWorlds } from './log-world.ts'

const MAX_AGE_MS = 10_000
const QUEUE = { kind: 'queue' } as const

async function apply(world: LogWorld): Promise<number> {
  return world.retention.applyRetention(world.clock.now())
}

/** Stores batches of two messages each. */
async function store(world: LogWorld, batches: number): Promise<void> {
  for (let turn = 0; turn < batches; turn++) await world.publish([world.message(turn), world.message(turn + 0.5)])
}

describe('retention in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('deletes what is old and settled, whole batches, and offsets go on', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await world.subscribe()
    await store(world, 3)
    await world.settleUpTo(5)
    assert.equal(await apply(world), 0)
    await world.clock.advance(MAX_AGE_MS + 1)
    assert.equal(await apply(world), 4)
    assert.deepEqual(await world.ends(topicId), [4, 6])
    await world.settleUpTo(6)
    assert.equal(await apply(world), 2)
    assert.deepEqual(await world.ends(topicId), [6, 6])
    assert.equal((await world.publish([world.message('next')]))[0]!.offset, 6)
    assert.deepEqual(await world.query('SELECT first_offset FROM @.floors'), [{ first_offset: 6 }])
  })

  test('keeps what somebody leases, was given back or set aside, until the slowest is done', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure(QUEUE)
    await world.subscribe()
    await store(world, 4)
    const key = await world.topics.findSubscription({ topic: 'orders', subscription: 'mail' })
    const { subscriptionId } = key
    await world.query(
      `INSERT INTO @.set_aside (subscription_id, partition, "offset", wait, status, attempt, crashes, failures)
       VALUES ($1, 0, 3, 'time', 'retrying', 1, 0, '[]')`,
      subscriptionId,
    )
    const lease = await world.turns.run(key, async ({ state }) => {
      state.cursors.set(0, 8)
      state.giveBack({ partition: 0, from: 6, to: 7, crashes: 0 })
      return state.lease({ source: 's/1', partition: 0, open: [4, 5], crashes: 0, isolated: false })
    })
    assert.equal(await apply(world), 2)
    await world.query('DELETE FROM @.set_aside')
    assert.equal(await apply(world), 2)
    await world.turns.run(key, async ({ state }) => void state.leases.delete(lease.id))
    assert.equal(await apply(world), 2)
    await world.turns.run(key, async ({ state }) => void state.returned.pop())
    assert.equal(await apply(world), 2)
    assert.deepEqual(await world.ends(topicId), [8, 8])
  })

  test('a cancelled message keeps nothing, and what was noted of it goes with it', async (context) => {
    const world = await openWorld(context)
    await world.ensure(QUEUE)
    await world.subscribe()
    await store(world, 1)
    await world.query('INSERT INTO @.cancelled VALUES (1, 0, 1)')
    await world.query('UPDATE @.topics SET has_cancelled = true')
    await world.settleUpTo(1)
    assert.equal(await apply(world), 2)
    assert.deepEqual(await world.query('SELECT FROM @.cancelled'), [])
  })

  test('keeps everything for the first subscription, unless unread messages may be dropped', async (context) => {
    const world = await openWorld(context)
    await world.ensure()
    await store(world, 2)
    await world.clock.advance(MAX_AGE_MS + 1)
    assert.equal(await apply(world), 0)
    await world.ensure({ retention: { maxAgeMs: MAX_AGE_MS, dropUnread: true } })
    assert.equal(await apply(world), 4)
  })

  test('deletes beyond the limit of bytes, the oldest first', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await store(world, 4)
    const [stored] = await world.query<{ bytes: number }>('SELECT sum(bytes)::int AS bytes FROM @.batches')
    const maxBytes = Math.ceil(stored!.bytes / 2)
    await world.ensure({ retention: { maxAgeMs: MAX_AGE_MS, maxBytes, dropUnread: true } })
    await apply(world)
    const [first, next] = await world.ends(topicId)
    assert.ok(first! >= 4 && first! < 8, `${first}`)
    assert.equal(next, 8)
  })

  test('goes on until nothing is left, however much there is', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure(QUEUE)
    await world.subscribe()
    await world.query(
      `INSERT INTO @.batches SELECT $1, 0, step, 1, 0, 0, 9, 0, '{}', '[]' FROM generate_series(0, 1199) step`,
      topicId,
    )
    await world.settleUpTo(1_100)
    assert.equal(await apply(world), 1_100)
    assert.deepEqual(await world.ends(topicId), [1_100, 1_200])
  })

  test('processes that delete, and store, at once do not disturb each other', async (context) => {
    const worlds = await openWorlds(context, 3)
    const world = worlds[0]!
    const topicId = await world.ensure({ ...QUEUE, maxBacklog: 1_000 })
    await world.subscribe()
    await world.settleUpTo(1_000)
    const deleted: number[] = []
    const offsets: number[] = []
    for (let round = 0; round < 20; round++) {
      const writing = worlds.map(
        async (each) => void offsets.push((await each.publish([each.message(round)]))[0]!.offset!),
      )
      const deleting = worlds.map(async (each) => void deleted.push(await apply(each)))
      await Promise.all([...writing, ...deleting])
    }
    deleted.push(await apply(world))
    assert.deepEqual(
      offsets.toSorted((one, other) => one - other),
      Array.from({ length: 60 }, (_, offset) => offset),
    )
    assert.equal(
      deleted.reduce((total, count) => total + count),
      60,
    )
    assert.deepEqual(await world.ends(topicId), [60, 60])
  })

  test('forgets ids whose time is over, also those that were stored while it looked', async (context) => {
    const world = await openWorld(context)
    await world.ensure({ deduplicationWindowMs: 1_000 })
    const publish = (id: string) => world.publish([world.message(id, { id, deduplicate: true })])
    const kept = async () => (await world.query('SELECT FROM @.ids')).length
    for (const id of ['a', 'b']) await publish(id)
    await world.clock.advance(999)
    await publish('c')
    await world.retention.forgetIds(world.clock.now())
    assert.equal(await kept(), 3)
    await world.clock.advance(1)
    await world.retention.forgetIds(world.clock.now())
    assert.equal(await kept(), 1)
    await world.clock.advance(999)
    await world.retention.forgetIds(world.clock.now())
    assert.equal(await kept(), 0)
  })
})
