/** How what was committed to the outbox comes into the log. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type pg from 'pg'
import { channelOf } from '../../../src/engines/postgres/database/listener.ts'
import { discard, OUTBOX_NOTICE } from '../../../src/engines/postgres/outbox/outbox.ts'
import { RelayRound } from '../../../src/engines/postgres/outbox/relay-round.ts'
import { type Logger, silentLogger, systemClock } from '../../../src/environment/index.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { newGroup, newMessage, numbersTo, TOPIC } from '../../conformance/messages.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { eventually, OutboxStage, topicConfig } from './outbox-stage.ts'

interface StrandedRow {
  readonly topic: string
  readonly code: string
}

/** What somebody else has written there, or an older version. */
const FOREIGN = [
  'not JSON',
  'null',
  '{"shared":"{}","messages":[1]}',
  '{"shared":"{}","messages":[{}]}',
  '{"shared":"{}","messages":[{"id":"x","timeMs":1,"json":5}]}',
  '{"shared":"{}","messages":[{"id":"x","timeMs":1,"json":"no JSON"}]}',
]

describe('the relay of the outbox', { concurrency: 2, skip: await whyNoPostgres() }, () => {
  test('a transaction that stays open holds nobody up, and what it published comes when it commits', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const [holder, user] = [await stage.user(), await stage.user()]
    await holder.query('BEGIN')
    await stage.appendIn(holder, ['held'])
    for (const data of ['a', 'b', 'c']) {
      await published(stage, user, data)
      await stage.relay.poll()
      assert.equal((await stage.logged()).at(-1), data)
    }
    await holder.query('COMMIT')
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), ['a', 'b', 'c', 'held'])
  })

  test('what was published first comes first, whichever transaction began first', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const [early, late] = [await stage.user(), await stage.user()]
    await early.query('BEGIN; SELECT pg_current_xact_id()')
    await published(stage, late, 'first')
    await stage.appendIn(early, ['second'])
    await early.query('COMMIT')
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), ['first', 'second'])
  })

  test('more than one transaction of the relay can take come in their order', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    await fill(stage, 1_203)
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), numbersTo(1_203))
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
    assert.equal((await stage.query('SELECT * FROM @.relay')).length, 1)
  })

  test('groups of one topic that follow each other share a record batch', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    for (const number of numbersTo(20)) await published(stage, user, number)
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), numbersTo(20))
    assert.equal((await stage.query('SELECT * FROM @.batches')).length, 1)
  })

  test('a round that is broken off is gone on with, and nothing comes twice', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    await fill(stage, 1_203)
    let calls = 0
    const round = new RelayRound({
      database: stage.database,
      name: 'unlucky',
      waits: false,
      onCarried: () => {},
      store(rows, groups) {
        if (++calls > 1) throw new Error('the process is dying')
        return stage.appender.storeWithin(rows, groups, stage.clock.now())
      },
    })
    await assert.rejects(round.run(false), /the process is dying/)
    const before = await stage.logged()
    assert.ok(before.length > 0 && before.length < 1_203)
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), numbersTo(1_203))
  })

  test('what the log cannot take is put aside, and said, and holds nobody up', async (context) => {
    const errors: string[] = []
    const logger: Logger = { ...silentLogger, error: (message) => void errors.push(message) }
    const stage = await OutboxStage.make(context, { relays: false, logger })
    const user = await stage.user()
    await published(stage, user, 'before')
    const badTime = { ...newMessage('bad', 0), timeMs: 1e30 }
    await user.query('BEGIN')
    await stage.outbox.appendIn(user, { ...newGroup([badTime]), shared: '{"type":"bad"}' })
    await user.query('COMMIT')
    for (const group of FOREIGN)
      await stage.query(`INSERT INTO @.outbox (topic, "group") VALUES ('${TOPIC}', '${group}')`)
    await published(stage, user, 'after')
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), ['before', 'after'])
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
    assert.equal((await stage.query<StrandedRow>('SELECT topic, code FROM @.stranded')).length, 1 + FOREIGN.length)
    assert.equal(errors.length, 1 + FOREIGN.length)
  })

  test('what was published for a topic that is gone waits until there is one of its name', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await stage.topics.ensure({ ...topicConfig, topic: 'short-lived' })
    await user.query('BEGIN')
    await stage.appendIn(user, ['kept'], { topic: 'short-lived', id: 'order-1' })
    await stage.appendIn(user, ['other'])
    await user.query('COMMIT')
    await stage.query(`DELETE FROM @.topics WHERE topic = 'short-lived'`)
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), ['other'])
    const stranded = await stage.query<StrandedRow>('SELECT topic, code FROM @.stranded')
    assert.deepEqual(stranded, [{ topic: 'short-lived', code: 'POSTHORN_TOPIC_NOT_FOUND' }])
    await stage.topics.ensure({ ...topicConfig, topic: 'short-lived' })
    await user.query('BEGIN')
    await stage.appendIn(user, ['newer'], { topic: 'short-lived' })
    await user.query('COMMIT')
    await stage.relay.poll()
    assert.deepEqual(await stage.logged('short-lived'), ['kept', 'newer'])
    assert.deepEqual(await stage.query('SELECT * FROM @.stranded'), [])
  })

  test('what is discarded with a topic is counted, and does not come', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await published(stage, user, 'a', 'b')
    await published(stage, user, 'c')
    assert.equal(await discard(stage.database, TOPIC), 3)
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), [])
  })

  test('tables that were restored from another cluster, whose transactions had higher numbers, are relayed', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await published(stage, user, 'before')
    await stage.relay.poll()
    await stage.query(`INSERT INTO @.relay VALUES (7, '900000000000:900000000005:900000000001', 'elsewhere')`)
    for (const data of ['a', 'b']) {
      await published(stage, user, data)
      await stage.relay.poll()
    }
    assert.deepEqual(await stage.logged(), ['before', 'a', 'b'])
  })

  test('rows that were restored from another cluster, whose transactions had lower numbers, are relayed', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    await published(stage, await stage.user(), 'before')
    await stage.relay.poll()
    const group = JSON.stringify(newGroup([newMessage('restored', 0)]))
    await stage.query(`INSERT INTO @.outbox (transaction_id, topic, "group") VALUES ('3', $1, $2)`, TOPIC, group)
    const joined = await OutboxStage.join(context, stage.space)
    await eventually(async () => assert.deepEqual(await joined.logged(), ['before', 'restored']))
  })

  test('what was missed is looked for without the turn to relay, which others need meanwhile', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    await published(stage, await stage.user(), 'before')
    await stage.relay.poll()
    const { database } = stage
    const store = async () => assert.fail('nothing is stored')
    const round = new RelayRound({ database, name: 'looking', waits: false, store, onCarried: () => {} })
    const other = await stage.user()
    await other.query(`BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('posthorn relay ${stage.space.name}', 0))`)
    await published(stage, await stage.user(), 'new')
    assert.equal((await round.run(false)).busy, true)
    assert.equal(await round.hasMissed(), false)
    await stage.query(`INSERT INTO @.outbox (transaction_id, topic, "group") VALUES ('3', $1, 'restored')`, TOPIC)
    assert.equal(await round.hasMissed(), true)
  })

  test('of several processes each message comes from one, and any of them does alone', async (context) => {
    const first = await OutboxStage.make(context)
    const second = await OutboxStage.join(context, first.space)
    const users = [await first.user(), await first.user()]
    const half = async (from: number) => {
      await Promise.all(
        users.map(async (user, place) => {
          for (let number = from + place; number < from + 100; number += 2) await published(first, user, number)
        }),
      )
    }
    await half(0)
    await first.relay.stop()
    await half(100)
    await eventually(async () => assert.equal((await second.logged()).length, 200))
    const numbers = (await second.logged()) as number[]
    assert.deepEqual(
      numbers.toSorted((one, other) => one - other),
      numbersTo(200),
    )
  })

  test('without notices it looks soon after a publish of its own, and from time to time', async (context) => {
    const stage = await OutboxStage.make(context, { query: '&pooling=transaction' })
    const user = await stage.user()
    await published(stage, user, 'own')
    await eventually(async () => assert.deepEqual(await stage.logged(), ['own']))
    const other = await OutboxStage.join(context, stage.space, { relays: false })
    await published(other, user, "another's")
    await eventually(async () => assert.deepEqual(await stage.logged(), ['own', "another's"]))
  })

  test('of many transactions some send a notice, and what the others published comes as well', async (context) => {
    let elapsedMs = 0
    const clock = { ...systemClock, elapsedMs: () => elapsedMs }
    const stage = await OutboxStage.make(context, { clock })
    const [user, listener] = [await stage.user(), await stage.user()]
    const heard: (string | undefined)[] = []
    listener.on('notification', ({ payload }) => void heard.push(payload))
    await listener.query(`LISTEN "${channelOf(stage.space.name)}"`)
    for (const number of numbersTo(20)) {
      if (number === 10) elapsedMs += 60
      await published(stage, user, number)
    }
    await eventually(async () => assert.deepEqual(await stage.logged(), numbersTo(20)))
    await listener.query('SELECT 1')
    assert.deepEqual(heard, [OUTBOX_NOTICE, OUTBOX_NOTICE])
  })

  test('with a clock that stands still it relays all the same, in every process', async (context) => {
    const clock = new VirtualClock()
    const stage = await OutboxStage.make(context, { clock })
    await OutboxStage.join(context, stage.space, { clock })
    const user = await stage.user()
    for (const number of numbersTo(30)) {
      await published(stage, user, number)
      await eventually(async () => assert.equal((await stage.logged()).at(-1), number))
    }
  })

  test('versions of what it has seen do not add up', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    for (const number of numbersTo(200)) {
      await published(stage, user, number)
      await stage.relay.poll()
    }
    const versions = await stage.query('SELECT * FROM @.relay')
    assert.ok(versions.length <= 64, `${versions.length} versions`)
    assert.deepEqual(await stage.logged(), numbersTo(200))
  })
})

async function published(stage: OutboxStage, user: pg.Client, ...data: unknown[]): Promise<void> {
  await user.query('BEGIN')
  await stage.appendIn(user, data)
  await user.query('COMMIT')
}

/** So many groups of one message, which differ in what they share so that each is stored by itself. */
async function fill(stage: OutboxStage, count: number): Promise<void> {
  const groups = numbersTo(count).map((number) => ({
    ...newGroup([newMessage(number, 0)]),
    shared: JSON.stringify({ type: number % 3 }),
  }))
  await stage.query(
    `INSERT INTO @.outbox (topic, "group") SELECT '${TOPIC}', value::text FROM json_array_elements($1::json) AS given(value)`,
    JSON.stringify(groups),
  )
}
