import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { log } from '../../../src/engines/postgres/sql/log.ts'
import { PosthornError } from '../../../src/errors.ts'
import { numbersTo } from '../../conformance/messages.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { groupOf, type LogWorld, openWorld, openWorlds, TOPIC } from './log-world.ts'

describe('appending to the log in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('offsets rise without gaps, and what was stored is read back', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const texts = ['plain', 'quotes " and \\ backslashes', '😀 \u0000', '']
    const first = await world.publish(texts.map((text) => world.message(text)))
    const second = await world.publish([world.message('last')])
    assert.deepEqual(
      [...first, ...second].map(({ offset }) => offset),
      [0, 1, 2, 3, 4],
    )
    assert.deepEqual(await world.read(topicId), [...texts, 'last'])
  })

  test('nothing goes into another topic that has the number of one that was known', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await world.publish([world.message('known')])
    // As on a server that was restored from before the topic was made.
    await world.query(`UPDATE @.topics SET topic = 'others'`)
    await assert.rejects(world.publish([world.message('lost')]), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    assert.deepEqual(await world.read(topicId), ['known'])
    const again = await world.ensure()
    await world.publish([world.message('again')])
    assert.deepEqual(await world.read(again), ['again'])
  })

  test('processes that store at once in the same partitions leave no gap, and each group keeps its order', async (context) => {
    const worlds = await openWorlds(context, 3)
    const topicId = await worlds[0]!.ensure({ partitions: 2 })
    const rounds = Array.from({ length: 30 }, (_, round) => {
      const world = worlds[round % worlds.length]!
      return world.publish([1, 2, 3].map((step) => world.message(`${round}.${step}`, { key: `key-${round % 5}` })))
    })
    const receipts = (await Promise.all(rounds)).flat()
    for (const partition of [0, 1]) {
      const data = await worlds[0]!.read(topicId, partition)
      const offsets = receipts.filter((receipt) => receipt.partition === partition).map(({ offset }) => offset!)
      assert.deepEqual(
        offsets.toSorted((one, other) => one - other),
        data.map((_, offset) => offset),
      )
      for (const [place, item] of data.entries()) {
        const [round, step] = String(item).split('.')
        if (step !== '3') assert.equal(data[place + 1], `${round}.${Number(step) + 1}`)
      }
    }
  })

  test('messages that are published one by one at the same moment share a batch', async (context) => {
    const world = await openWorld(context)
    await world.ensure()
    await Promise.all(Array.from({ length: 50 }, (_, turn) => world.publish([world.message(turn)])))
    assert.deepEqual(await world.query('SELECT count FROM @.batches'), [{ count: 50 }])
    assert.equal(world.stored.length, 1)
  })

  test('no batch has more than 1,000 messages, and other attributes begin another one', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const many = Array.from({ length: 1_200 }, (_, turn) => world.message(turn))
    const groups = [
      groupOf(many),
      groupOf([world.message('other')], TOPIC, '{"type":"other"}'),
      groupOf([world.message('x')]),
    ]
    await world.appender.append(groups, {}, 0)
    const batches = await world.query<{ count: number }>('SELECT count FROM @.batches ORDER BY base_offset')
    assert.deepEqual(
      batches.map(({ count }) => count),
      [1_000, 200, 1, 1],
    )
    assert.deepEqual((await world.read(topicId)).slice(1_200), ['other', 'x'])
  })

  test('a lane begins with its first message, delayed or not', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure({ partitions: 2 })
    assert.deepEqual(await world.ends(topicId, 2), [])
    const [receipt] = await world.publish([world.message('urgent', { priority: 'high', key: 'k' })])
    assert.ok(receipt!.partition === 2 || receipt!.partition === 3)
    assert.deepEqual(await world.ends(topicId, receipt!.partition === 2 ? 3 : 2), [0, 0])
    await world.publish([world.message('later', { priority: 'low', deliverAtMs: world.clock.now() + 10 })])
    assert.deepEqual(await world.ends(topicId, 5), [0, 0])
  })

  test('a topic that was made anew with other partitions, by another process, is found again', async (context) => {
    const [world, other] = await openWorlds(context, 2)
    const old = await world!.ensure()
    await world!.publish([world!.message('old')])
    await other!.query('DELETE FROM @.topics WHERE topic_id = $1', old)
    await assert.rejects(world!.publish([world!.message('lost')]), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    const topicId = await other!.ensure({ partitions: 8 })
    const [receipt] = await world!.publish([world!.message('new', { key: 'user-1' })])
    assert.deepEqual(await other!.read(topicId, receipt!.partition), ['new'])
  })

  test('an id is stored once within its window, over processes', async (context) => {
    const worlds = await openWorlds(context, 2)
    const topicId = await worlds[0]!.ensure()
    const publish = (turn: number) => {
      const world = worlds[turn % 2]!
      return world.publish([world.message(turn, { id: 'one', deduplicate: true })])
    }
    const receipts = (await Promise.all(Array.from({ length: 12 }, (_, turn) => publish(turn)))).flat()
    assert.equal(receipts.filter(({ duplicate }) => !duplicate).length, 1)
    for (const world of worlds) await world.clock.advance(1_000)
    assert.equal((await publish(12))[0]!.duplicate, false)
    assert.equal((await worlds[0]!.read(topicId)).length, 2)
  })

  test('the limit of the backlog counts what the slowest subscription has not taken', async (context) => {
    const world = await openWorld(context)
    await world.ensure({ maxBacklog: 2 })
    await world.subscribe()
    await world.publish([world.message(1), world.message(2), world.message(3)])
    const full = { code: 'POSTHORN_BACKLOG_FULL', details: { topic: TOPIC, backlog: 3, limit: 2 } }
    await assert.rejects(world.publish([world.message(4)]), full)
    await world.settleUpTo(2)
    await world.publish([world.message(5)])
    const calls = [6, 7].map((data) => world.publish([world.message(data)]))
    assert.deepEqual(
      (await Promise.allSettled(calls)).map(({ status }) => status),
      ['rejected', 'rejected'],
    )
  })

  test('all groups of an atomic call or none', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const groups = [groupOf([world.message('a', { deduplicate: true })]), groupOf([world.message('b')], 'unheard-of')]
    for (const outcome of await world.appender.append(groups, { atomic: true }, 0)) {
      assert.ok('refused' in outcome && outcome.refused instanceof PosthornError)
      assert.equal(outcome.refused.code, 'POSTHORN_TOPIC_NOT_FOUND')
    }
    assert.deepEqual(await world.ends(topicId), [0, 0])
    assert.deepEqual(await world.query('SELECT FROM @.ids'), [])
  })

  test('what is stored within a transaction is there if that commits', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const store = (data: string, then: () => void) =>
      world.database.transaction(async (rows) => {
        await world.appender.appendWithin(rows, [groupOf([world.message(data)])], 0)
        then()
      })
    const failure = new PosthornError('POSTHORN_CLOSED', { operation: 'test' })
    await assert.rejects(
      store('lost', () => {
        throw failure
      }),
      failure,
    )
    await store('kept', () => {})
    assert.deepEqual(await world.read(topicId), ['kept'])
  })

  test('a failure of the last statement rejects every call, with its own reason, and stores nothing', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await world.query(`ALTER TABLE @.batches ADD CONSTRAINT refused CHECK (shared <> '{"refused":true}')`)
    const refused = world.appender.append([groupOf([world.message('a')], TOPIC, '{"refused":true}')], {}, 0)
    const beside = world.publish([world.message('b')])
    for (const call of [refused, beside])
      await assert.rejects(call, { code: 'POSTHORN_STORAGE_FAILED', message: /"refused"/ })
    await world.publish([world.message('c')])
    assert.deepEqual(await world.read(topicId), ['c'])
  })

  test('when the connection is lost with the commit under way, the outcome is unknown', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    await world.query(`
      CREATE FUNCTION @.end_connection() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$`)
    await world.query('CREATE TRIGGER ended BEFORE INSERT ON @.batches EXECUTE FUNCTION @.end_connection()')
    await assert.rejects(world.publish([world.message('a')]), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
    await world.query('DROP TRIGGER ended ON @.batches')
    await world.publish([world.message('b')])
    assert.deepEqual(await world.read(topicId), ['b'])
  })
})

describe('delayed messages in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('enter the log when they are due, in the order of their times, and once', async (context) => {
    const worlds = await openWorlds(context, 3)
    const world = worlds[0]!
    const topicId = await world.ensure()
    const nowMs = world.clock.now()
    for (const step of [3, 1, 2]) await world.publish([world.message(step, { deliverAtMs: nowMs + step })])
    assert.equal(world.stored.at(-1)!.dueAtMs, nowMs + 2)
    assert.deepEqual((await world.delayed.promoteDue(nowMs)).batches, [])
    assert.equal(await world.delayed.nextDueMs(), nowMs + 1)
    await Promise.all(worlds.map(({ delayed }) => delayed.promoteDue(nowMs + 2)))
    assert.deepEqual(await world.read(topicId), [1, 2])
    assert.equal(await world.delayed.nextDueMs(), nowMs + 3)
    await world.delayed.promoteDue(nowMs + 3)
    assert.deepEqual(await world.read(topicId), [1, 2, 3])
    assert.equal(await world.delayed.nextDueMs(), undefined)
  })

  test('what is stored late, below what was looked at already, is found all the same', async (context) => {
    const [world, late] = await openWorlds(context, 2)
    const topicId = await world!.ensure()
    const nowMs = world!.clock.now()
    await world!.delayed.promoteDue(nowMs)
    await late!.appender.append([groupOf([late!.message('late', { deliverAtMs: nowMs - 60_000 })])], {}, nowMs - 90_000)
    await world!.delayed.promoteDue(nowMs + 30_000)
    assert.deepEqual(await world!.read(topicId), ['late'])
  })

  test('more than go at once are left for the next call', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const nowMs = world.clock.now()
    const messages = Array.from({ length: 700 }, (_, data) => world.message(data, { deliverAtMs: nowMs + 1 }))
    await world.publish(messages)
    while ((await world.delayed.promoteDue(nowMs + 1)).unfinished) {}
    assert.deepEqual(
      await world.read(topicId),
      messages.map((_, data) => data),
    )
  })

  test('of many, those that were moved are not walked past again, but for once', async (context) => {
    const world = await openWorld(context)
    const topicId = await world.ensure()
    const nowMs = world.clock.now()
    const [longAgo] = await looksOf(context, world, nowMs)
    const messages = numbersTo(1_200).map((step) => world.message(step, { deliverAtMs: nowMs + step }))
    await world.publish(messages)
    const late = world.message('late', { deliverAtMs: nowMs + 1 })
    const looks = await looksOf(context, world, nowMs + 2_000, async (number) => {
      if (number === 2) await world.appender.append([groupOf([late])], {}, nowMs)
    })
    assert.ok(longAgo! < nowMs - 60_000)
    assert.deepEqual(looks, [nowMs - 5_000, nowMs + 500, nowMs + 1_000, nowMs - 5_000])
    assert.deepEqual(await world.read(topicId), [...numbersTo(1_200), 'late'])
  })
})

/** Moves all that is due; after which time it has looked in each round. */
async function looksOf(
  context: TestContext,
  { database, delayed }: LogWorld,
  nowMs: number,
  beforeRound: (number: number) => Promise<void> = async () => {},
): Promise<number[]> {
  const { mock } = context.mock.method(database, 'rows')
  for (let number = 1, unfinished = true; unfinished; number++) {
    await beforeRound(number)
    unfinished = (await delayed.promoteDue(nowMs)).unfinished
  }
  mock.restore()
  const calls = mock.calls.map(({ arguments: [statement, ...values] }) => ({ statement, values }))
  return calls.filter(({ statement }) => statement === log.dueDelayed).map(({ values }) => Number(values[0]))
}
