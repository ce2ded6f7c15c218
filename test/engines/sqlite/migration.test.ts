/** Files of older schema versions: they become today's when they are opened, and lose nothing. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import { SCHEMA_VERSION } from '../../../src/engines/sqlite/store/file/migrate.ts'
import { failure } from '../../conformance/messages.ts'
import { Bench, eventually, HERE, newFile, type Reader, sql, TOPIC, topicConfig } from './bench.ts'
import { VERSION_1 } from './schemas/version-1.ts'

const AUDIT = { ...HERE, subscription: 'audit' }

/** A process of today on a file of version 1. */
async function migrated(context: TestContext): Promise<{ bench: Bench; file: string }> {
  const file = oldFile(context)
  return { bench: await Bench.open(context, file), file }
}

function oldFile(context: TestContext, change = ''): string {
  const file = newFile(context)
  using database = new DatabaseSync(file)
  database.exec(`PRAGMA journal_mode = WAL; BEGIN; ${VERSION_1} ${change}; COMMIT`)
  return file
}

/** Takes messages until there are as many, and settles them. Returns each one's data and attempt. */
async function takeAll(reader: Reader, count: number): Promise<string[]> {
  const taken: string[] = []
  while (taken.length < count) {
    const grants = await reader.pull()
    for (const { attempt, messages } of grants) taken.push(...messages.map(({ event }) => `${event.data} ${attempt}`))
    assert.deepEqual(await reader.ack(grants), [])
  }
  return taken.toSorted()
}

describe('a file of schema version 1', { concurrency: 2 }, () => {
  test('gets the tables, indexes, triggers and views of a new one', async (context) => {
    const { file } = await migrated(context)
    const fresh = newFile(context)
    await Bench.open(context, fresh)
    assert.deepEqual(shapeOf(file), shapeOf(fresh))
    const [version] = sql(file, "SELECT value FROM posthorn_meta WHERE name = 'schema_version'")
    assert.equal(version!.value, SCHEMA_VERSION)
    assert.equal(sql(file, 'PRAGMA integrity_check')[0]!.integrity_check, 'ok')
  })

  test('shows the same state as before', async (context) => {
    const { bench } = await migrated(context)
    await eventually(async () => {
      const { retrying, returned, leased, deadLetters, parked, blockedKeys } = await bench.state()
      const counts = { retrying, returned, leased, deadLetters, parked, blockedKeys }
      assert.deepEqual(counts, { retrying: 2, returned: 2, leased: 0, deadLetters: 1, parked: 0, blockedKeys: 0 })
    })
    const [audit, mail] = await bench.engine.admin.subscriptions()
    assert.deepEqual([audit!.paused, mail!.paused], [true, false])
    assert.deepEqual(mail!.positions, [
      { partition: 0, offset: 15 },
      { partition: 1, offset: 0 },
    ])
    const topics = await bench.engine.admin.topics()
    assert.deepEqual(
      topics.map(({ topic, kind, partitions }) => [topic, kind, partitions.length]),
      [
        ['events', 'topic', 2],
        ['jobs', 'queue', 1],
      ],
    )
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), [])
  })

  test('delivers what was fresh, leased, returned, due and to be tried again, and nothing that was settled', async (context) => {
    const { bench, file } = await migrated(context)
    const expected = ['another 1', 'due 1', 'fresh 1', 'leased 1', 'other 1', 'redriven 1', 'retried 2', 'returned 1']
    assert.deepEqual(await takeAll(await bench.source(), expected.length), expected)
    const { backlog, retrying, returned, leased } = await bench.state()
    assert.deepEqual([backlog, retrying, returned, leased], [0, 0, 0, 0])
    assert.deepEqual(sql(file, 'SELECT set_aside FROM posthorn_subscriptions WHERE name = ?', 'mail')[0]!.set_aside, 0)
    await bench.engine.admin.resume(AUDIT)
    assert.equal((await takeAll(await bench.source(AUDIT), 9)).length, 9)
  })

  test('keeps the failures of retries, and counts the rows that are set aside', async (context) => {
    const { bench, file } = await migrated(context)
    const counted = sql(file, 'SELECT name, set_aside FROM posthorn_subscriptions ORDER BY name')
    assert.deepEqual(
      counted.map(({ name, set_aside }) => [name, set_aside]),
      [
        ['audit', 0],
        ['mail', 2],
      ],
    )
    const reader = await bench.source()
    const grants = await reader.pull()
    const retried = grants.find(({ attempt }) => attempt === 2)!
    assert.equal(retried.failures[0]?.message, 'first')
    const exceptions = [{ offset: 11, kind: 'dead', reason: 'attempts', failure: failure(2, 1, 'second') }] as const
    await reader.source.settle([{ lease: retried.lease, acked: [], exceptions }])
    const letters = await bench.engine.admin.deadLetters(HERE, { limit: 10 })
    assert.deepEqual(
      letters.map(({ id, attempts, failures }) => [id, attempts, failures.length]),
      [
        [7, 2, 1],
        [8, 2, 2],
      ],
    )
  })

  test('redrives its dead letters', async (context) => {
    const { bench } = await migrated(context)
    const reader = await bench.source()
    await takeAll(reader, 8)
    assert.equal(await bench.engine.admin.redrive(HERE, {}), 1)
    assert.deepEqual(await takeAll(reader, 1), ['dead 1'])
  })

  test('cancels what waits for its time, what was redriven, and what has no place by its id', async (context) => {
    const { bench } = await migrated(context)
    assert.equal((await bench.engine.admin.cancel(TOPIC, 'later')).delayed, 1)
    assert.equal((await bench.engine.admin.cancel(TOPIC, 'redriven')).waiting, 1)
    assert.equal((await bench.engine.admin.cancel(TOPIC, 'fresh')).waiting, 2)
    const expected = ['another 1', 'due 1', 'leased 1', 'other 1', 'retried 2', 'returned 1']
    assert.deepEqual(await takeAll(await bench.source(), expected.length), expected)
    assert.equal((await bench.state()).backlog, 0)
  })

  test('remembers ids, and never uses those of topics, subscriptions and leases again', async (context) => {
    const { bench, file } = await migrated(context)
    for (const id of ['fresh', 'later']) {
      const [receipt] = await bench.publish(['again'], { id })
      assert.equal(receipt!.duplicate, true, id)
    }
    await bench.subscription({ subscription: 'new' })
    const [row] = sql(file, 'SELECT subscription_id AS id FROM posthorn_subscriptions WHERE name = ?', 'new')
    assert.equal(row!.id, 10)
    const [grant] = await (await bench.source({ subscription: 'mail' })).pull(1)
    assert.ok(grant!.lease >= 6 * 2 ** 24, `${grant!.lease}`)
  })

  test('takes part in what is new: order, priorities, steps', async (context) => {
    const { bench } = await migrated(context)
    await bench.engine.ensureTopic({ ...topicConfig, partitions: 2 })
    await bench.subscription({ ordered: true, maxParked: 10 })
    await bench.publish(['urgent'], { key: 'k', priority: 'high' })
    const reader = await bench.source()
    const [grant] = await reader.pull(1)
    const { offset } = grant!.messages[0]!
    await reader.source.recordStep(grant!.lease, offset, 'step', '1')
    assert.deepEqual(await reader.source.steps(grant!.lease, offset), new Map([['step', '1']]))
    await reader.ack([grant!])
    assert.equal((await takeAll(reader, 8)).length, 8)
  })

  test('keeps a damaged delayed message to itself', async (context) => {
    const file = oldFile(context, `UPDATE posthorn_delayed SET own = '{' WHERE delayed_id = 1`)
    const bench = await Bench.open(context, file)
    assert.equal((await bench.engine.admin.cancel(TOPIC, 'later')).delayed, 0)
    assert.equal((await takeAll(await bench.source(), 8)).length, 8)
  })

  test('stays as it was when the migration fails', async (context) => {
    const file = oldFile(context, 'CREATE TABLE posthorn_steps (mine)')
    await assert.rejects(Bench.open(context, file))
    const [version] = sql(file, "SELECT value FROM posthorn_meta WHERE name = 'schema_version'")
    assert.equal(version!.value, 1)
    sql(file, 'DROP TABLE posthorn_steps')
    assert.equal((await takeAll(await (await Bench.open(context, file)).source(), 8)).length, 8)
  })

  test('is migrated once by processes that open it at the same moment', async (context) => {
    const file = oldFile(context)
    const benches = await Promise.all(Array.from({ length: 4 }, () => Bench.open(context, file)))
    for (const bench of benches) assert.equal((await bench.state()).deadLetters, 1)
  })
})

/** All that SQLite knows of our tables, whatever the order and the layout in which it was said. */
function shapeOf(file: string): Record<string, unknown> {
  const objects = sql(file, "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name LIKE '%posthorn%'")
  return Object.fromEntries(
    objects.map(({ type, name, tbl_name, sql: text }) => {
      if (type !== 'table') return [`${type} ${name}`, [tbl_name, normalised(text)]]
      const columns = sql(file, 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)', String(name))
      const options = sql(file, 'SELECT wr, strict FROM pragma_table_list(?)', String(name))
      const hasSequence = /AUTOINCREMENT/.test(String(text))
      const sorted = columns.toSorted((one, other) => (String(one.name) < String(other.name) ? -1 : 1))
      return [`table ${name}`, { columns: sorted, options, hasSequence }]
    }),
  )
}

function normalised(text: unknown): string | null {
  return typeof text === 'string' ? text.replace(/--.*$/gm, '').replace(/\s+/g, ' ') : null
}
