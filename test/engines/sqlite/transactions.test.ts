/** Messages published within the user's own transaction, on the user's own connection. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import type { AppendOutcome } from '../../../src/engine.ts'
import type { PosthornError } from '../../../src/errors.ts'
import { newGroup, newMessage, type PublishOptions } from '../../conformance/messages.ts'
import { Bench, coded, dataOf, eventually, folder, newFile, sql, TOPIC, topicConfig } from './bench.ts'
import { Child } from './processes/child.ts'

describe("in the user's transaction", { concurrency: 2 }, () => {
  test('a commit delivers, and a roll-back stores nothing', async (context) => {
    const { bench, database } = await shared(context)
    database.exec('BEGIN; INSERT INTO users VALUES (1)')
    await appendIn(bench, database, ['undone'])
    database.exec('ROLLBACK')
    database.exec('BEGIN; INSERT INTO users VALUES (2)')
    const outcome = await appendIn(bench, database, ['done'])
    assert.deepEqual(outcome, { receipts: [{ duplicate: false, partition: 0, offset: 0 }] })
    database.exec('COMMIT')
    assert.deepEqual(await (await bench.source()).take(1), ['done'])
    assert.deepEqual(
      database
        .prepare('SELECT id FROM users')
        .all()
        .map((row) => row.id),
      [2],
    )
  })

  test('a pull that waits wakes after the commit, in this process and in another', async (context) => {
    const { bench, database, file } = await shared(context)
    await bench.subscription({ subscription: 'here' })
    const other = Child.start(context, { file, role: 'ack' })
    await other.reported('ready')
    const waiting = (await bench.source({ subscription: 'here' })).pull()
    database.exec('BEGIN')
    await appendIn(bench, database, ['committed'])
    database.exec('COMMIT')
    assert.deepEqual(dataOf(await waiting), ['committed'])
    assert.deepEqual((await other.reported('granted'))[0]!.data, ['committed'])
  })

  test('what is wrong with a connection is said, and coded', async (context) => {
    const { bench, database } = await shared(context)
    const refused = coded('POSTHORN_INVALID_TRANSACTION')
    await assert.rejects(appendIn(bench, database, ['a']), refused, 'no transaction is open')
    for (const wrong of [undefined, null, 'tx', 7, {}, { prepare() {} }, () => {}]) {
      await assert.rejects(appendIn(bench, wrong, ['a']), refused, String(wrong))
    }
    using elsewhere = new DatabaseSync(join(folder(context), 'other.db'))
    elsewhere.exec('BEGIN')
    await assert.rejects(appendIn(bench, elsewhere, ['a']), refused, 'another file')
    using nowhere = new DatabaseSync(':memory:')
    nowhere.exec('BEGIN')
    await assert.rejects(appendIn(bench, nowhere, ['a']), refused, 'in memory')
    database.close()
    await assert.rejects(appendIn(bench, database, ['a']), refused, 'a closed connection')
  })

  test('a connection of another library is refused, because of its own copy of SQLite', async (context) => {
    const { bench } = await shared(context)
    const other = { prepare() {}, exec() {}, inTransaction: true, open: true }
    await assert.rejects(appendIn(bench, other, ['a']), (error: unknown) => {
      coded('POSTHORN_INVALID_TRANSACTION')(error)
      assert.match((error as Error).message, /another copy of SQLite in one process does not see the locks/)
      return true
    })
  })

  test('somebody else with the lock is told with the time that the connection waits', async (context) => {
    const { bench, database, file } = await shared(context)
    database.exec('PRAGMA busy_timeout = 7')
    using rival = new DatabaseSync(file)
    rival.exec('BEGIN IMMEDIATE')
    database.exec('BEGIN')
    await assert.rejects(appendIn(bench, database, ['a']), (error: unknown) => {
      coded('POSTHORN_STORAGE_BUSY')(error)
      assert.equal((error as PosthornError).details.waitedMs, 7)
      return true
    })
  })

  test('the write-ahead log is copied back, so that no commit of the user has to do it', async (context) => {
    const { bench, database, file } = await shared(context)
    database.exec('PRAGMA wal_autocheckpoint = 0')
    const large = 'x'.repeat(100_000)
    for (let round = 0; round < 30; round++) {
      database.exec('BEGIN')
      await appendIn(bench, database, [large])
      database.exec('COMMIT')
    }
    await eventually(() => {
      const [state] = sql(file, 'PRAGMA wal_checkpoint(NOOP)')
      const pages = Number(state?.log) - Number(state?.checkpointed)
      assert.ok(pages < 256, `${pages} pages of the log are not in the database`)
    })
  })

  test('a connection that was closed and opened again is as good as new', async (context) => {
    const { bench, database } = await shared(context)
    for (const data of ['first', 'second']) {
      database.exec('BEGIN')
      await appendIn(bench, database, [data]).catch(() => appendIn(bench, database, [data]))
      database.exec('COMMIT')
      database.close()
      database.open()
    }
    assert.deepEqual(await (await bench.source()).take(2), ['first', 'second'])
  })

  test('a connection that reads big integers and arrays by default will do', async (context) => {
    const { bench, file } = await shared(context)
    using database = new DatabaseSync(file, { readBigInts: true, returnArrays: true })
    database.exec('BEGIN')
    await appendIn(bench, database, ['a'])
    database.exec('COMMIT')
    assert.deepEqual(await (await bench.source()).take(1), ['a'])
  })

  test('ids are deduplicated and delays kept; a roll-back forgets the id', async (context) => {
    const { bench, database } = await shared(context)
    const duplicateOf = (outcome: AppendOutcome) => 'receipts' in outcome && outcome.receipts[0]?.duplicate
    database.exec('BEGIN')
    await appendIn(bench, database, ['undone'], { id: 'order-1' })
    database.exec('ROLLBACK; BEGIN')
    assert.equal(duplicateOf(await appendIn(bench, database, ['kept'], { id: 'order-1' })), false)
    assert.equal(duplicateOf(await appendIn(bench, database, ['again'], { id: 'order-1' })), true)
    await appendIn(bench, database, ['later'], { deliverAtMs: Date.now() + 200 })
    database.exec('COMMIT')
    const reader = await bench.source()
    assert.deepEqual(await reader.take(1), ['kept'])
    assert.deepEqual(await reader.take(1), ['later'])
  })

  test('a topic that is not there is refused, and the transaction can go on', async (context) => {
    const { bench, database } = await shared(context)
    database.exec('BEGIN; INSERT INTO users VALUES (1)')
    await assert.rejects(appendIn(bench, database, ['a'], { topic: 'none' }), coded('POSTHORN_TOPIC_NOT_FOUND'))
    database.exec('COMMIT')
    assert.equal(database.prepare('SELECT * FROM users').all().length, 1)
  })

  test('a group that fails half-way leaves nothing in the transaction', async (context) => {
    const { bench, database, file } = await shared(context)
    sql(
      file,
      `CREATE TRIGGER refuse BEFORE INSERT ON posthorn_batches WHEN NEW.partition = 0
               BEGIN SELECT RAISE(ABORT, 'refused'); END`,
    )
    database.exec('BEGIN')
    await assert.rejects(appendIn(bench, database, ['a'], { id: 'order-1' }), coded('POSTHORN_STORAGE_FAILED'))
    database.exec('COMMIT')
    assert.equal(sql(file, 'SELECT * FROM posthorn_deduplication').length, 0)
    assert.equal(sql(file, 'SELECT next_offset AS next FROM posthorn_partitions')[0]?.next, 0)
  })

  test('keys find the partition that the topic has, whoever made it', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { partitions: 8 })
    const [direct] = await bench.publish(['a'], { key: 'user-7' })
    const other = await Bench.open(context, file)
    using database = new DatabaseSync(file)
    database.exec('BEGIN')
    const outcome = await appendIn(other, database, ['b'], { key: 'user-7' })
    database.exec('COMMIT')
    assert.equal('receipts' in outcome && outcome.receipts[0]?.partition, direct?.partition)
  })

  test('making a topic or a subscription that is there already does not wait for the transaction', async (context) => {
    const { bench, database } = await shared(context)
    database.exec('BEGIN IMMEDIATE')
    await bench.engine.ensureTopic(topicConfig)
    await bench.subscription()
    database.exec('ROLLBACK')
  })

  test('a transaction held open for longer than the leases costs nobody anything', async (context) => {
    const { bench, database } = await shared(context, 400)
    const other = await Bench.open(context, join(database.location()!), 400)
    await bench.publish(['a'])
    const reader = await bench.source()
    const held = await reader.pull()
    const rival = (await other.source()).pull()
    database.exec('BEGIN IMMEDIATE')
    const publishing = bench.publish(['b'])
    const [session] = await consumersOf(database)
    await eventually(() => assert.ok(Date.now() > session! + 200, 'the sessions run'))
    database.exec('COMMIT')
    await publishing
    assert.deepEqual(dataOf(await rival), ['b'])
    assert.deepEqual(await reader.ack(held), [])
    assert.deepEqual(reader.lost, [])
  })
})

async function shared(context: TestContext, leaseMs = 60_000) {
  const file = newFile(context)
  const bench = await Bench.make(context, file, { leaseMs })
  const database = new DatabaseSync(file, { timeout: 5_000 })
  database.exec('CREATE TABLE users (id INTEGER)')
  context.after(() => database.isOpen && database.close())
  return { bench, database, file }
}

function appendIn(bench: Bench, transaction: unknown, data: readonly unknown[], options: PublishOptions = {}) {
  const messages = data.map((item) => newMessage(item, Date.now(), options))
  return bench.engine.appendIn(transaction, newGroup(messages, options.topic ?? TOPIC))
}

/** Until when the sessions hold, latest first. */
async function consumersOf(database: DatabaseSync): Promise<number[]> {
  const rows = database.prepare('SELECT lease_until_ms AS until FROM posthorn_sessions ORDER BY 1 DESC').all()
  return rows.map((row) => Number(row.until))
}
