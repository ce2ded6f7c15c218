/** Messages published within the user's own transactions on Postgres, with connections of `pg`. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pg from 'pg'
import type { AppendOutcome } from '../../../src/engine.ts'
import { assertCode } from '../../conformance/assertions.ts'
import { newGroup } from '../../conformance/messages.ts'
import { newDatabase, whyNoPostgres } from '../../servers/shared-postgres.ts'
import { eventually, OutboxStage, topicConfig } from './outbox-stage.ts'

const REFUSED = { code: 'POSTHORN_INVALID_TRANSACTION' }

describe("in the user's transaction", { concurrency: 2, skip: await whyNoPostgres() }, () => {
  test('a commit delivers, and a roll-back stores nothing', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query(`BEGIN; INSERT INTO users VALUES ('undone')`)
    await stage.appendIn(user, ['undone'])
    await user.query('ROLLBACK')
    await user.query(`BEGIN; INSERT INTO users VALUES ('done')`)
    assert.deepEqual(await stage.appendIn(user, ['done']), { receipts: [{ duplicate: false }] })
    assert.deepEqual(await stage.logged(), [])
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), ['done']))
    assert.deepEqual((await user.query('SELECT name FROM users')).rows, [{ name: 'done' }])
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
  })

  test('what is rolled back to a savepoint is not stored', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query('BEGIN; SAVEPOINT one')
    await stage.appendIn(user, ['undone'], { id: 'order-1' })
    await user.query('ROLLBACK TO SAVEPOINT one')
    assert.equal(isDuplicate(await stage.appendIn(user, ['done'], { id: 'order-1' })), false)
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), ['done']))
  })

  test('a publish right after a roll-back to a savepoint that is not awaited is stored', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query('BEGIN; SAVEPOINT one')
    await assert.rejects(user.query('SELECT 1 / 0'), { code: '22012' })
    const rollingBack = user.query('ROLLBACK TO SAVEPOINT one')
    await stage.appendIn(user, ['stored'])
    await rollingBack
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), ['stored']))
  })

  test('a publish that is not awaited is part of the transaction that is committed right after it', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    for (const data of ['first', 'second']) {
      await user.query('BEGIN')
      const publishing = stage.appendIn(user, [data])
      if (data === 'first') await publishing
      await Promise.all([user.query('COMMIT'), publishing])
    }
    await eventually(async () => assert.deepEqual(await stage.logged(), ['first', 'second']))
  })

  for (const [what, next] of [
    ['ended', 'SELECT'],
    ['followed by another one on the same connection', 'BEGIN'],
  ] as const) {
    test(`a transaction that is ${what} while a publish looks at the backlog gets nothing`, async (context) => {
      const stage = await OutboxStage.make(context)
      await stage.topics.ensure({ ...topicConfig, topic: 'limited', maxBacklog: 10 })
      const user = await stage.user()
      await user.query('BEGIN')
      await stage.appendIn(user, ['before'])
      const query = user.query.bind(user) as (...values: unknown[]) => Promise<unknown>
      const intercept = context.mock.method(user, 'query', async (...values: unknown[]) => {
        const answer = await query(...values)
        intercept.mock.restore()
        await query('ROLLBACK')
        await query(next)
        return answer
      })
      await assert.rejects(stage.appendIn(user, ['phantom'], { topic: 'limited' }), REFUSED)
      await user.query('COMMIT')
      assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
    })
  }

  test('a transaction that may only read is refused, and goes on', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    for (const which of ['a new connection', 'a known one']) {
      await user.query('BEGIN READ ONLY')
      await assert.rejects(stage.appendIn(user, [which]), REFUSED)
      if (which === 'a new connection') assert.equal((await user.query('SELECT 1')).rowCount, 1)
      await user.query('ROLLBACK; BEGIN')
      await stage.appendIn(user, ['known from now on'])
      await user.query('ROLLBACK')
    }
  })

  test('serializable transactions that publish under ids of their own do not keep each other from committing', async (context) => {
    const stage = await OutboxStage.make(context)
    const users = [await stage.user(), await stage.user()]
    for (const user of users) await user.query('BEGIN ISOLATION LEVEL SERIALIZABLE')
    for (const [number, user] of users.entries()) await stage.appendIn(user, [number], { id: `order-${number}` })
    for (const user of users) await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), [0, 1]))
  })

  test('a publish after a roll-back that is not awaited stores nothing', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query('BEGIN')
    await stage.appendIn(user, ['undone'])
    const [, refused] = await Promise.allSettled([user.query('ROLLBACK'), stage.appendIn(user, ['phantom'])])
    assertCode((refused as PromiseRejectedResult).reason, 'POSTHORN_INVALID_TRANSACTION')
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
  })

  test('calls side by side in one transaction are all stored, in their order', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query('BEGIN')
    await Promise.all([1, 2, 3, 4].map((number) => stage.appendIn(user, [number, -number])))
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), [1, -1, 2, -2, 3, -3, 4, -4]))
  })

  test('what is wrong with a connection is said, and coded', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await assert.rejects(stage.appendIn(user, ['a']), REFUSED, 'no transaction is open')
    await user.query('BEGIN')
    await stage.appendIn(user, ['b'])
    await user.query('ROLLBACK')
    await assert.rejects(stage.appendIn(user, ['a']), REFUSED, 'no transaction is open any more')
    for (const wrong of [undefined, null, 'tx', 7, {}, { prepare() {} }, () => {}]) {
      await assert.rejects(stage.appendIn(wrong, ['a']), REFUSED, String(wrong))
    }
    const pool = new pg.Pool({ connectionString: stage.space.url })
    await assert.rejects(stage.appendIn(pool, ['a']), { ...REFUSED, message: /Pool of pg/ })
    await pool.end()
    const ended = new pg.Client({ connectionString: stage.space.url })
    await ended.connect()
    await ended.end()
    await assert.rejects(stage.appendIn(ended, ['a']), { code: /POSTHORN_(INVALID_TRANSACTION|STORAGE_UNAVAILABLE)/ })
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
  })

  test('a transaction of another database is refused, and can go on', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const elsewhere = await newDatabase()
    const client = await stage.user(elsewhere.url)
    context.after(() => elsewhere.drop())
    await client.query(`BEGIN; INSERT INTO users VALUES ('kept')`)
    await assert.rejects(stage.appendIn(client, ['a']), { ...REFUSED, message: /another database/ })
    await client.query('COMMIT')
    assert.equal((await client.query('SELECT * FROM users')).rowCount, 1)
  })

  test('a transaction of another database that has a store of the same name is refused as well', async (context) => {
    const elsewhere = await newDatabase()
    const here = await newDatabase()
    const none = { name: 'posthorn', drop: async () => {} }
    const stage = await OutboxStage.join(context, { ...none, url: `${here.url}?` }, { relays: false })
    const other = await OutboxStage.join(context, { ...none, url: `${elsewhere.url}?` }, { relays: false })
    context.after(() => Promise.all([elsewhere.drop(), here.drop()]))
    await stage.topics.ensure(topicConfig)
    await other.topics.ensure(topicConfig)
    const client = await stage.user(elsewhere.url)
    await client.query('BEGIN')
    await assert.rejects(stage.appendIn(client, ['a']), { ...REFUSED, message: /another database/ })
    await other.appendIn(client, ['b'])
    await client.query('COMMIT')
    assert.equal((await other.query('SELECT * FROM @.outbox')).length, 1)
  })

  test('a transaction that has failed is refused', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await user.query('BEGIN')
    await assert.rejects(user.query('SELECT 1 / 0'))
    await assert.rejects(stage.appendIn(user, ['a']), { ...REFUSED, message: /has failed/ })
  })

  test('what the server says of the statement is not taken for a failure of the connection', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    const refuse = `${stage.space.name}.refuse`
    await user.query(`
      CREATE FUNCTION ${refuse}() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON ${stage.space.name}.outbox EXECUTE FUNCTION ${refuse}();
      BEGIN`)
    const expected = { code: 'POSTHORN_STORAGE_FAILED', message: /could not serialize access/ }
    await assert.rejects(stage.appendIn(user, ['a']), expected)
  })

  test('a role without the right to write to the outbox is told so', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    const role = `${stage.space.name}_role`
    await user.query(`CREATE ROLE ${role}; GRANT USAGE ON SCHEMA ${stage.space.name} TO ${role}`)
    await user.query(`BEGIN; SET LOCAL ROLE ${role}`)
    await assert.rejects(stage.appendIn(user, ['a']), { ...REFUSED, message: /permission denied/ })
    await user.query(`ROLLBACK; DROP OWNED BY ${role}; DROP ROLE ${role}`)
  })

  test('a topic that is not there is refused, and the transaction can go on', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    await user.query(`BEGIN; INSERT INTO users VALUES ('kept')`)
    await assert.rejects(stage.appendIn(user, ['a'], { topic: 'none' }), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await user.query('COMMIT')
    assert.equal((await user.query('SELECT * FROM users')).rowCount, 1)
  })

  test('an empty group is nothing', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await user.query('BEGIN')
    assert.deepEqual(await stage.outbox.appendIn(user, newGroup([])), { receipts: [] })
    await user.query('COMMIT')
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
  })

  test('ids are looked up: in the transaction, in the outbox, and among those that are remembered', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const user = await stage.user()
    await user.query('BEGIN')
    assert.equal(isDuplicate(await stage.appendIn(user, ['kept'], { id: 'order-1' })), false)
    assert.equal(isDuplicate(await stage.appendIn(user, ['again'], { id: 'order-1' })), true)
    await user.query('COMMIT; BEGIN')
    assert.equal(isDuplicate(await stage.appendIn(user, ['and again'], { id: 'order-1' })), true)
    await user.query('COMMIT')
    await stage.relay.poll()
    await user.query('BEGIN')
    assert.equal(isDuplicate(await stage.appendIn(user, ['once more'], { id: 'order-1' })), true)
    assert.equal(isDuplicate(await stage.appendIn(user, ['other'], { id: 'order\u00002' })), false)
    await user.query('COMMIT')
    await stage.relay.poll()
    assert.deepEqual(await stage.logged(), ['kept', 'other'])
    assert.deepEqual(await stage.query('SELECT * FROM @.outbox_ids'), [])
  })

  test('of two open transactions with one id, the log keeps one message', async (context) => {
    const stage = await OutboxStage.make(context)
    const users = [await stage.user(), await stage.user()]
    for (const user of users) {
      await user.query('BEGIN')
      await stage.appendIn(user, ['once'], { id: 'order-1' })
    }
    for (const user of users) await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), []))
    assert.deepEqual(await stage.logged(), ['once'])
  })

  test('a full backlog refuses, and leaves the transaction alone', async (context) => {
    const stage = await OutboxStage.make(context)
    await stage.topics.ensure({ ...topicConfig, topic: 'limited', maxBacklog: 1 })
    const user = await stage.user()
    await user.query('BEGIN')
    assert.ok('receipts' in (await stage.appendIn(user, ['a', 'b'], { topic: 'limited' })))
    assert.ok('receipts' in (await stage.appendIn(user, ['c'], { topic: 'limited' })))
    await user.query('COMMIT')
    // Each was looked at when it was published: none is refused when it comes to the log.
    await eventually(async () => assert.deepEqual(await stage.logged('limited'), ['a', 'b', 'c']))
    await user.query('BEGIN')
    const outcome = await stage.appendIn(user, ['d'], { topic: 'limited' })
    assert.ok('refused' in outcome)
    assertCode(outcome.refused, 'POSTHORN_BACKLOG_FULL')
    await stage.appendIn(user, ['elsewhere'])
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), ['elsewhere']))
  })

  test('any text survives', async (context) => {
    const stage = await OutboxStage.make(context)
    const user = await stage.user()
    const texts = [
      '😀 grüße 漢字',
      'a\u0000b\u0000',
      '\ud800',
      '"\\\n\r\t',
      '\u2028',
      '',
      "'; DROP TABLE x; --",
      'is it? $1 :x',
    ]
    await user.query('BEGIN')
    await stage.appendIn(user, texts, { key: 'k\u0000e😀y' })
    await user.query('COMMIT')
    await eventually(async () => assert.deepEqual(await stage.logged(), texts))
  })
})

function isDuplicate(outcome: AppendOutcome): boolean | undefined {
  assert.ok('receipts' in outcome)
  return outcome.receipts[0]?.duplicate
}
