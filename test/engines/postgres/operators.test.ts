/** What operators see and do of a Postgres store, beside what the conformance suite asks of every engine. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Failure, SettledException } from '../../../src/engine.ts'
import { StepSweeping } from '../../../src/engines/postgres/chores.ts'
import { DeliveryState } from '../../../src/engines/postgres/delivery/delivery-state.ts'
import { idHash } from '../../../src/engines/postgres/log/id-hash.ts'
import { seededRandom } from '../../../src/environment/index.ts'
import { IdentifierSource } from '../../../src/message/identifier.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { HERE, type OperatorsWorld, openWorld, SOURCE, TOPIC } from './operators-world.ts'

const NOTHING = { delayed: 0, waiting: 0, running: 0 }
const failure: Failure = { attempt: 1, atMs: 0, name: 'Error', message: 'no' }

const numbers = (count: number) => Array.from({ length: count }, (_, number) => number)
const named = (...ids: readonly string[]) => ids.map((id) => ({ id }))

async function settle(world: OperatorsWorld, lease: number, exceptions: readonly SettledException[]): Promise<void> {
  await world.turn((turn) => world.settling.settle(turn, SOURCE, [{ lease, acked: [], exceptions }]))
}

async function retry(world: OperatorsWorld, lease: number, offset: number, key?: string): Promise<void> {
  const dueAtMs = world.clock.now() + 1_000
  await settle(world, lease, [{ offset, kind: 'retry', dueAtMs, failure, ...(key !== undefined && { key }) }])
}

async function bury(world: OperatorsWorld, lease: number, offset: number): Promise<void> {
  await settle(world, lease, [{ offset, kind: 'dead', reason: 'attempts', failure }])
}

async function stateOf(world: OperatorsWorld) {
  const [state] = await world.admin.subscriptions(TOPIC)
  return state!
}

describe('operators of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('a subscription accounts for every message', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    await world.subscription()
    await world.store(named('a', 'b', 'c', 'd', 'e', 'f'))
    const lease = await world.lease(5)
    await retry(world, lease, 0)
    await settle(world, lease, [{ offset: 1, kind: 'release' }])
    await settle(world, lease, [{ offset: 2, kind: 'park', until: world.clock.now() + 1_000 }])
    await bury(world, lease, 3)
    await world.clock.advance(700)
    const expected = { backlog: 1, lagMs: 700, leased: 1, retrying: 1, returned: 1, parked: 1, deadLetters: 1 }
    assert.partialDeepStrictEqual(await stateOf(world), { ...expected, positions: [{ partition: 0, offset: 5 }] })
    await world.turn(async ({ state, rows }) => {
      const text = `SELECT row_id AS "rowId" FROM @.set_aside WHERE "offset" = 0`
      const [row] = await rows.rows<{ rowId: number }>({ name: 'row', text })
      state.lease({ source: SOURCE, partition: 0, open: [0, 1], crashes: 0, isolated: false, rowId: row!.rowId })
    })
    assert.partialDeepStrictEqual(await stateOf(world), { ...expected, leased: 2, retrying: 0 })
    assert.deepEqual(await world.admin.checkIntegrity(), [])
  })

  test('thousands of subscriptions are listed within the time that a transaction has', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    await world.query(
      `INSERT INTO @.subscriptions (topic_id, subscription, ordered, max_crashes, max_parked)
       SELECT 1, 's' || number, false, 3, 1000 FROM generate_series(1, 10000) number`,
    )
    await world.query(
      `INSERT INTO @.states SELECT subscription_id, 1, $1 FROM @.subscriptions`,
      DeliveryState.startingAt(new Map()).toText(),
    )
    await world.query(
      `INSERT INTO @.set_aside (subscription_id, partition, "offset", wait, due_at_ms, status, attempt, crashes, failures)
       SELECT subscription_id, 0, 0, 'time', 0, status, 1, 0, '[]'
         FROM @.subscriptions, unnest(ARRAY['retrying', 'parked']) status`,
    )
    const states = await world.admin.subscriptions()
    assert.equal(states.length, 10_000)
    assert.ok(states.every(({ retrying, parked, returned }) => retrying === 1 && parked === 1 && returned === 0))
  })

  test('consumers are listed with the subscriptions of their open sources', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    await world.subscription()
    await world.store(named('a'))
    await world.lease(1)
    await world.query(`INSERT INTO @.sessions VALUES ('session', 0, 500, 100, 1000, 'host', 7, true)`)
    await world.query(`INSERT INTO @.sessions VALUES ('publisher', 0, 500, 100, 1000, 'host', 8, false)`)
    assert.deepEqual(await world.admin.consumers(), [
      { id: 'session', host: 'host', pid: 7, startedAtMs: 100, leaseUntilMs: 1_500, subscriptions: [HERE] },
    ])
  })

  test('peek passes over what is damaged, however much that is', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    for (const number of numbers(5)) await world.store(named(`${number}`, `${number}+`))
    await world.query(`UPDATE @.batches SET data = replace(data, 'time', 'tyme') WHERE base_offset BETWEEN 2 AND 7`)
    const peeked = await world.admin.peek(TOPIC, { partition: 0, fromOffset: 1, limit: 2 })
    assert.deepEqual(
      peeked.map(({ message }) => [message.offset, message.event.data]),
      [
        [1, '0+'],
        [8, '4'],
      ],
    )
    assert.deepEqual(await world.admin.peek(TOPIC, { partition: 7, fromOffset: 0, limit: 2 }), [])
  })

  describe('cancel', () => {
    test('the backlog and the position pass over cancelled messages', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      await world.subscription()
      await world.store(named('a', 'b', 'c', 'd'))
      for (const id of ['a', 'b', 'd']) {
        assert.deepEqual(await world.admin.cancel(TOPIC, id), { ...NOTHING, waiting: 1 })
        assert.deepEqual(await world.admin.cancel(TOPIC, id), NOTHING)
      }
      assert.partialDeepStrictEqual(await stateOf(world), { backlog: 1, positions: [{ partition: 0, offset: 2 }] })
      assert.deepEqual(world.woken, ['s1', 't1', 's1', 't1', 's1', 't1'])
    })

    test('of two that wait for their time the youngest is deleted', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      for (const timeMs of [1, 3, 2]) {
        const values = [idHash('a'), timeMs]
        await world.query(
          `INSERT INTO @.delayed (topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own)
                           VALUES (1, 0, $1, 1000, $2, '{}', '{}')`,
          ...values,
        )
      }
      assert.deepEqual(await world.admin.cancel(TOPIC, 'a'), { ...NOTHING, delayed: 1 })
      assert.deepEqual(await world.query(`SELECT time_ms FROM @.delayed ORDER BY 1`), [{ time_ms: 1 }, { time_ms: 2 }])
    })

    test('what is leased, returned or set aside counts as settled, for each subscription', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      const others = ['done', 'fresh', 'returned', 'waiting']
      for (const name of [HERE.subscription, ...others]) await world.subscription(name)
      await world.store(named('a', 'b'))
      const lease = await world.lease(2)
      const at = (subscription: string) => ({ topic: TOPIC, subscription })
      await world.turn(async ({ state }) => void state.cursors.set(0, 2), at('done'))
      for (const name of ['returned', 'waiting']) {
        const id = await world.lease(2, 0, at(name))
        const exception = name === 'returned' ? { kind: 'release' } : { kind: 'park', until: 5_000 }
        const exceptions = [{ offset: 1, ...exception } as SettledException]
        await world.turn(
          (turn) => world.settling.settle(turn, SOURCE, [{ lease: id, acked: [], exceptions }]),
          at(name),
        )
      }
      assert.deepEqual(await world.admin.cancel(TOPIC, 'b'), { delayed: 0, waiting: 3, running: 1 })
      const open = await world.turn(async ({ state }) => state.leases.get(lease)?.open)
      assert.deepEqual(open, [0, 1])
      assert.deepEqual(await world.query(`SELECT * FROM @.set_aside`), [])
      assert.deepEqual(await world.admin.checkIntegrity(), [])
    })

    test('ids are found by their time, and by looking through what is unread', async (context) => {
      const world = await openWorld(context)
      await world.topic(3)
      const identifiers = new IdentifierSource(seededRandom(3))
      const ids: string[] = []
      for (const number of numbers(300)) {
        const id = number % 3 === 0 ? identifiers.next(world.clock.now()) : `it's "${number}"\n☃\0`
        if (number % 10 < 3) ids.push(id)
        await world.store([{ id: `${number}`, data: { id: 'not there' } }, { id }], number % 3)
        await world.clock.advance(number % 5)
      }
      for (const id of ids) assert.deepEqual(await world.admin.cancel(TOPIC, id), { ...NOTHING, waiting: 1 }, id)
      for (const id of ['not there', identifiers.next(world.clock.now()), identifiers.next(0)]) {
        assert.deepEqual(await world.admin.cancel(TOPIC, id), NOTHING)
      }
      assert.deepEqual(await world.query(`SELECT count(*) AS cancelled FROM @.cancelled`), [{ cancelled: ids.length }])
    })

    test('of several with an id the youngest is meant, redriven ones among them', async (context) => {
      const world = await openWorld(context)
      await world.topic(2)
      await world.subscription()
      await world.store([{ id: 'a', timeMs: 5_000 }], 0)
      await world.store(
        [
          { id: 'a', timeMs: 9_000 },
          { id: 'a', timeMs: 7_000 },
        ],
        1,
      )
      await bury(world, await world.lease(1), 0)
      await world.admin.redrive(HERE, {})
      assert.deepEqual(await world.admin.cancel(TOPIC, 'a'), { ...NOTHING, waiting: 1 })
      assert.deepEqual(await world.query(`SELECT partition, "offset" FROM @.cancelled`), [{ partition: 1, offset: 0 }])
      await world.turn(async ({ state }) => void state.cursors.set(1, 2))
      assert.deepEqual(await world.admin.cancel(TOPIC, 'a'), { ...NOTHING, waiting: 1 })
      assert.deepEqual(await world.query(`SELECT * FROM @.set_aside`), [])
    })

    test('a turn that has waited for it knows that messages are cancelled', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      await world.subscription()
      await world.store(named('a'))
      const held = Promise.withResolvers<void>()
      const locked = Promise.withResolvers<void>()
      const holder = world.turns.across([1], async ([turn], rows) => {
        locked.resolve()
        await held.promise
        await rows.run({ name: 'set', text: `UPDATE @.topics SET has_cancelled = true, generation = 7` })
        assert.ok(turn)
      })
      await locked.promise
      const waiting = world.turn(async ({ subscription }) => subscription)
      for (let waits = 0; waits === 0; ) {
        const text = `SELECT count(*) AS waits FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1`
        waits = (await world.query<{ waits: number }>(text, `%${world.database.address.schema}%`))[0]!.waits
      }
      held.resolve()
      await holder
      assert.partialDeepStrictEqual(await waiting, { hasCancelled: true, generation: 7 })
    })
  })

  describe('many dead letters', { concurrency: true }, () => {
    const LETTERS = 2_500

    async function worldWithLetters(context: TestContext): Promise<OperatorsWorld> {
      const world = await openWorld(context)
      await world.topic(2)
      await world.subscription(HERE.subscription, true)
      await buryMany(world, LETTERS)
      return world
    }

    /** The later ones were published first. */
    async function buryMany(world: OperatorsWorld, count: number): Promise<void> {
      await world.query(
        `INSERT INTO @.dead_letters (subscription_id, partition, "offset", key, blocks, reason, dead_at_ms, attempts,
                                     crashes, failures, event, id_hash)
         SELECT 1, number % 2, 10000 - number, 'k' || number % 20, true, 'attempts', 0, 1, 0, '[]', '{"id":"a"}', $2
           FROM generate_series(1, $1::int) number`,
        count,
        idHash('a'),
      )
    }

    test('come back some at a time, each key in its order, and without those that die meanwhile', async (context) => {
      const world = await worldWithLetters(context)
      const across = world.turns.across.bind(world.turns)
      const seen: unknown[] = []
      context.mock.method(world.turns, 'across', async (...values: Parameters<typeof across>) => {
        if (seen.length === 0) await buryMany(world, 3)
        const value = await across(...values)
        seen.push(value)
        return value
      })
      assert.equal(await world.admin.redrive(HERE, { perSecond: 1_000 }), LETTERS)
      assert.deepEqual(seen, [1_000, 1_000, 500])
      assert.equal((await stateOf(world)).deadLetters, 3)
      assert.deepEqual(await world.admin.checkIntegrity(), [])
      const [due] = await world.query<{ places: number; last: number }>(
        `SELECT count(DISTINCT due_at_ms) AS places, max(due_at_ms) AS last FROM @.set_aside`,
      )
      assert.deepEqual(due, { places: LETTERS, last: world.clock.now() + LETTERS - 1 })
      const unordered = await world.query(
        `SELECT FROM @.set_aside one JOIN @.set_aside other USING (partition, key)
          WHERE one."offset" > other."offset" AND one.row_id < other.row_id - 1000`,
      )
      assert.equal(unordered.length, 0)
    })

    test('are deleted some at a time, with the steps of those that are gone for good', async (context) => {
      const world = await worldWithLetters(context)
      await world.query(`INSERT INTO @.steps SELECT 1, partition, "offset", 'charge', '1' FROM @.dead_letters`)
      await world.query(`INSERT INTO @.steps VALUES (1, 0, 3, 'charge', '1')`)
      await world.turn(async ({ state }) => {
        for (const partition of [0, 1]) state.cursors.set(partition, 10_000)
        state.returned.push({ partition: 0, from: 9_000, to: 9_003, crashes: 0 })
      })
      const { mock } = context.mock.method(world.turns, 'across')
      assert.equal(await world.admin.deleteDeadLetters(HERE), LETTERS)
      assert.equal(mock.callCount(), 3)
      const left = await world.query<{ offset: number }>(`SELECT "offset" FROM @.steps WHERE "offset" > 3 ORDER BY 1`)
      assert.deepEqual(left, [{ offset: 9_000 }, { offset: 9_002 }])
    })
  })

  describe('seek', () => {
    test('back, what is at or after the position comes through the cursor alone', async (context) => {
      const world = await openWorld(context)
      await world.topic(2)
      await world.subscription()
      await world.store(named('a', 'b', 'c', 'd', 'e', 'f'))
      const lease = await world.lease(5)
      await retry(world, lease, 1)
      await retry(world, lease, 3)
      await settle(world, lease, [{ offset: 4, kind: 'release' }])
      await world.admin.seek(HERE, { offset: 2, partition: 0 })
      const { state } = await world.turn(async (turn) => turn)
      assert.deepEqual([...state.leases.values()], [])
      assert.deepEqual(state.returned, [{ partition: 0, from: 0, to: 1, crashes: 0 }])
      assert.deepEqual(
        [...state.cursors],
        [
          [0, 2],
          [1, 0],
        ],
      )
      assert.partialDeepStrictEqual(await stateOf(world), { backlog: 4, retrying: 1, returned: 1, leased: 0 })
      assert.deepEqual(await world.admin.checkIntegrity(), [])
      assert.deepEqual(world.woken, ['s1'])
    })

    test('a chain whose first message is taken back goes on', async (context) => {
      const world = await openWorld(context)
      await world.topic(2)
      await world.subscription(HERE.subscription, true)
      await world.store(named('a', 'b', 'c'))
      const lease = await world.lease(3)
      await settle(world, lease, [
        { offset: 0, kind: 'park', until: 'freed', key: 'k' },
        { offset: 1, kind: 'dead', reason: 'attempts', failure, key: 'k', blocks: true },
      ])
      assert.partialDeepStrictEqual(await stateOf(world), { blockedKeys: 1, parked: 1 })
      await world.admin.seek(HERE, { offset: 1 })
      assert.partialDeepStrictEqual(await stateOf(world), { blockedKeys: 0, parked: 0, retrying: 1 })
    })
  })

  describe('purge', () => {
    test('everything goes but dead letters and their steps; offsets are not used again', async (context) => {
      const world = await openWorld(context)
      await world.topic(2)
      await world.subscription()
      for (const number of numbers(2_500)) if (number % 25 === 0) await world.store(named(`${number}`, `${number}+`))
      await world.store(named('other'), 1)
      const lease = await world.lease(4)
      for (const offset of [0, 1]) {
        await world.turn((turn) => world.steps.record(turn, SOURCE, lease, offset, 'charge', '1'))
      }
      await bury(world, lease, 0)
      await retry(world, lease, 1)
      assert.equal(await world.admin.purge(TOPIC), 201)
      assert.partialDeepStrictEqual((await world.admin.topics())[0], {
        messages: 0,
        bytes: 0,
        partitions: [
          { partition: 0, firstOffset: 200, nextOffset: 200 },
          { partition: 1, firstOffset: 1, nextOffset: 1 },
        ],
      })
      assert.partialDeepStrictEqual(await stateOf(world), { backlog: 0, leased: 0, retrying: 0, deadLetters: 1 })
      assert.deepEqual(await world.query(`SELECT "offset" FROM @.steps`), [{ offset: 0 }])
      assert.deepEqual(await world.query(`SELECT * FROM @.batches`), [])
      await world.store(named('new'))
      assert.equal(await world.admin.purge(TOPIC), 1)
      assert.deepEqual(await world.query(`SELECT partition, first_offset FROM @.floors ORDER BY 1`), [
        { partition: 0, first_offset: 201 },
        { partition: 1, first_offset: 1 },
      ])
      assert.deepEqual(await world.admin.checkIntegrity(), [])
    })

    test('delayed messages and ids go however many there are, and those of other topics stay', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      const many = `FROM generate_series(1, 12000), (VALUES ((SELECT topic_id FROM @.topics)), (-1)) AS topic(topic_id)`
      await world.query(`INSERT INTO @.ids SELECT topic_id, gen_random_uuid(), 1e15 ${many}`)
      const columns = 'topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own'
      await world.query(
        `INSERT INTO @.delayed (${columns}) SELECT topic_id, 0, gen_random_uuid(), 1e15, 0, '{}', '{}' ${many}`,
      )
      assert.equal(await world.admin.purge(TOPIC), 12_000)
      for (const table of ['ids', 'delayed']) {
        const left = await world.query(`SELECT topic_id, count(*)::int FROM @.${table} GROUP BY topic_id`)
        assert.deepEqual(left, [{ topic_id: -1, count: 12_000 }])
      }
    })

    test('what was committed to the outbox, and what got stuck there, is deleted too', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      await world.store(named('logged'))
      const group = JSON.stringify({ topic: TOPIC, messages: [{}, {}] })
      await world.query(`INSERT INTO @.outbox (topic, "group") VALUES ($1, $2), ('other', $2)`, TOPIC, group)
      const stuck = `INSERT INTO @.stranded (outbox_id, topic, "group", code, problem) VALUES (0, $1, $2, 'CODE', '')`
      await world.query(stuck, TOPIC, group)
      assert.match((await world.admin.checkIntegrity()).join(), /events.*1 committed publications.*CODE/)
      assert.equal(await world.admin.purge(TOPIC), 5)
      assert.deepEqual(await world.admin.checkIntegrity(), [])
      assert.deepEqual(await world.query(`SELECT topic FROM @.outbox`), [{ topic: 'other' }])
      assert.deepEqual(await world.query(`SELECT topic FROM @.stranded`), [])
      await assert.rejects(world.admin.purge('other'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
      assert.equal((await world.query(`SELECT topic FROM @.outbox`)).length, 1)
    })

    test('what an interrupted one has left is out of reach, and goes with the next', async (context) => {
      const world = await openWorld(context)
      await world.topic()
      for (const number of numbers(3)) await world.store(named(`${number}`))
      await world.query(`INSERT INTO @.floors VALUES (1, 0, 2)`)
      assert.partialDeepStrictEqual((await world.admin.topics())[0], { messages: 1 })
      assert.deepEqual(await world.admin.checkIntegrity(), [])
      assert.equal(await world.admin.purge(TOPIC), 1)
      assert.deepEqual(await world.query(`SELECT * FROM @.batches`), [])
    })
  })

  for (const what of ['subscription', 'topic'] as const) {
    test(`a deleted ${what} leaves no rows behind`, async (context) => {
      const world = await openWorld(context)
      await world.topic()
      await world.subscription()
      await world.store(named('a', 'b', 'c'))
      const lease = await world.lease(3)
      await bury(world, lease, 0)
      await retry(world, lease, 1)
      await world.turn((turn) => world.steps.record(turn, SOURCE, lease, 2, 'charge', '1'))
      await world.admin.cancel(TOPIC, 'c')
      await world.query(`INSERT INTO @.ids VALUES (1, $1, 5)`, idHash('a'))
      if (what === 'topic') await world.admin.deleteTopic(TOPIC)
      else await world.admin.deleteSubscription(HERE)
      const column = `${what}_id`
      const tables = await world.query<{ table: string }>(
        `SELECT c.table_name AS table FROM information_schema.columns c JOIN information_schema.tables USING (table_schema, table_name)
          WHERE table_schema = $1 AND column_name = $2 AND table_type = 'BASE TABLE'`,
        world.database.address.schema,
        column,
      )
      assert.ok(tables.length > 5)
      for (const { table } of tables) assert.deepEqual(await world.query(`SELECT * FROM @.${table}`), [], table)
      assert.ok(world.woken.includes('s1') && world.woken.includes('t1'))
      const missing = what === 'topic' ? 'POSTHORN_TOPIC_NOT_FOUND' : 'POSTHORN_SUBSCRIPTION_NOT_FOUND'
      for (const call of ['pause', 'resume', 'deleteSubscription'] as const) {
        await assert.rejects(world.admin[call](HERE), { code: missing }, call)
      }
      await assert.rejects(world.admin.seek(HERE, { at: 'latest' }), { code: missing })
    })
  }

  test('a queue whose subscription was deleted keeps everything for the next one', async (context) => {
    const world = await openWorld(context)
    await world.topic(1, 'queue')
    await world.subscription()
    assert.equal((await world.topics.find(TOPIC)).hadSubscription, true)
    await world.admin.deleteSubscription(HERE)
    assert.equal((await world.topics.find(TOPIC)).hadSubscription, false)
  })

  test('the switch of a subscription', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    await world.subscription()
    await world.admin.pause(HERE)
    assert.equal((await stateOf(world)).paused, true)
    await world.admin.resume(HERE)
    assert.equal((await stateOf(world)).paused, false)
  })

  test('the check of integrity names what is damaged, missing, or makes no sense', async (context) => {
    const world = await openWorld(context)
    await world.topic(2)
    await world.subscription()
    for (const number of numbers(40)) await world.store(named(`${number}`, `${number}+`))
    await world.store(named('other'), 1)
    await world.lease(4)
    assert.deepEqual(await world.admin.checkIntegrity(), [])
    await world.query(`UPDATE @.batches SET data = replace(data, 'time', 'tyme') WHERE base_offset = 6`)
    await world.query(`DELETE FROM @.batches WHERE base_offset IN (10, 12)`)
    await world.turn(async ({ state }) => {
      state.setAside = 3
      state.cursors.set(1, 9)
      state.lease({ source: SOURCE, partition: 0, open: [1, 2], crashes: 0, isolated: false })
      state.lease({ source: SOURCE, partition: 0, open: [1, 2], crashes: 0, isolated: false, rowId: 77 })
    })
    assert.deepEqual(await world.admin.checkIntegrity(), [
      'Messages 6 to 7 of topic events, partition 0, are damaged.',
      'Messages 10 to 13 of topic events, partition 0, are missing, or stored twice.',
      'The cursor of subscription mail of topic events lies beyond the end of partition 1.',
      'Lease 3 of subscription mail of topic events is for a message that is not set aside.',
      'Leases or returned messages of subscription mail of topic events overlap, or make no sense.',
      '0 messages of subscription mail of topic events are set aside, and 3 are accounted for.',
    ])
  })

  test('steps whose message is not delivered again are forgotten', async (context) => {
    const world = await openWorld(context)
    await world.topic()
    await world.subscription()
    await world.store(named('a', 'b', 'c', 'd'))
    const lease = await world.lease(4)
    for (const offset of [0, 1, 2, 3]) {
      await world.turn((turn) => world.steps.record(turn, SOURCE, lease, offset, 'charge', '1'))
    }
    await bury(world, lease, 1)
    await retry(world, lease, 2)
    // By a handler that no longer knows of steps.
    await world.turn((turn) => world.settling.settle(turn, SOURCE, [{ lease, acked: [0, 1], exceptions: [] }]))
    await new StepSweeping(world).run()
    assert.deepEqual(await world.query(`SELECT "offset" FROM @.steps ORDER BY 1`), [
      { offset: 1 },
      { offset: 2 },
      { offset: 3 },
    ])
  })
})
