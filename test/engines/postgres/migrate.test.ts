import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import pg from 'pg'
import type { Database } from '../../../src/engines/postgres/database/database.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { LOCK_MIGRATIONS, MIGRATIONS, type Migration } from '../../../src/engines/postgres/sql/migrations.ts'
import { PosthornError } from '../../../src/errors.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { PostgresProxy } from './faults-proxy.ts'
import { newStore, openDatabase, query } from './space.ts'

const TO_VERSION_2: Migration = { text: 'ALTER TABLE @.topics ADD COLUMN note text', compatibleFrom: 1 }
const TO_VERSION_3: Migration = { text: 'ALTER TABLE @.topics DROP COLUMN note', compatibleFrom: 2 }
const NEWER = [...MIGRATIONS, TO_VERSION_2]
const NEWEST = [...NEWER, TO_VERSION_3]

interface Version {
  readonly version: number
  readonly compatible_from: number
}

async function versionOf(database: Database): Promise<Version> {
  const [version] = await query<Version>(database, 'SELECT version, compatible_from FROM @.schema_version')
  return version!
}

async function hasNote(database: Database): Promise<boolean> {
  const found = await query(
    database,
    `SELECT FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'topics' AND column_name = 'note'`,
    database.address.schema,
  )
  return found.length > 0
}

async function hasRunningWait(database: Database): Promise<boolean> {
  const text = `SELECT FROM pg_locks WHERE NOT granted AND relation = '@.topics'::regclass`
  return (await query(database, text)).length > 0
}

/** How many transactions on this database wait for one that migrates this store to end. */
async function waitingMigrations(database: Database): Promise<number> {
  const text = `SELECT FROM pg_locks, hashtextextended('posthorn migrations of @.', 0) AS key
                 WHERE locktype = 'advisory' AND NOT granted AND objid = (key & 4294967295)::oid`
  return (await query(database, text)).length
}

async function hold(context: TestContext, database: Database, text: string): Promise<() => Promise<void>> {
  const client = database.newClient()
  client.on('error', () => {})
  await client.connect()
  context.after(() => client.end())
  await client.query('BEGIN')
  await client.query(database.resolve(text))
  return async () => void (await client.query('ROLLBACK'))
}

async function until(check: () => Promise<boolean>): Promise<void> {
  while (!(await check()));
}

/** A role that may use what is in the schema, and create nothing. */
async function withoutPrivileges(context: TestContext, database: Database, url: string): Promise<Database> {
  const { schema } = database.address
  const role = `${schema}_user`
  await query(database, `CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
  await query(database, `GRANT USAGE ON SCHEMA ${schema} TO ${role}`)
  const address = new URL(url)
  address.username = role
  address.password = 'secret'
  const limited = openDatabase(context, address.href)
  context.after(async () => {
    const owner = openDatabase(context, url)
    await query(owner, `DROP OWNED BY ${role}`)
    await query(owner, `DROP ROLE ${role}`)
  })
  return limited
}

describe('the schema of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('is made where there is none, the schema that holds it too, and left alone after that', async (context) => {
    const url = new URL(await newStore(context))
    url.searchParams.set('schema', `${url.searchParams.get('schema')}_new`)
    const database = openDatabase(context, url.href)
    context.after(async () => {
      const owner = openDatabase(context, url.href)
      await query(owner, `DROP SCHEMA "${owner.address.schema}" CASCADE`)
    })
    await migrate(database)
    assert.deepEqual(await versionOf(database), { version: MIGRATIONS.length, compatible_from: 1 })
    await query(database, `UPDATE @.schema_version SET compatible_from = 0`)
    await migrate(database)
    assert.equal((await versionOf(database)).compatible_from, 0)
  })

  test('is made once by processes that start together', async (context) => {
    const url = await newStore(context)
    const databases = Array.from({ length: 5 }, () => openDatabase(context, url))
    const release = await hold(context, databases[0]!, LOCK_MIGRATIONS)
    // So small a step that the server does not tell the others of it by itself.
    const first: Migration = { text: 'CREATE TABLE @.topics (topic text)', compatibleFrom: 1 }
    const migrating = databases.map((database) => migrate(database, { migrations: [first, TO_VERSION_2] }))
    await until(async () => (await waitingMigrations(databases[0]!)) === databases.length)
    await release()
    await Promise.all(migrating)
    assert.deepEqual(await versionOf(databases[0]!), { version: 2, compatible_from: 1 })
    assert.equal((await query(databases[0]!, 'SELECT FROM @.schema_version')).length, 1)
  })

  test('takes all steps in between, and keeps what is stored', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database)
    await query(
      database,
      `INSERT INTO @.topics (topic, kind, partitions, deduplication_window_ms, max_age_ms, drop_unread)
       VALUES ('topic', 'topic', 1, 0, 0, false)`,
    )
    await migrate(database, { migrations: NEWEST, noticeSeconds: 0 })
    assert.deepEqual(await versionOf(database), { version: 3, compatible_from: 2 })
    assert.equal((await query(database, 'SELECT FROM @.topics')).length, 1)
  })

  test('works with an older process for as long as it says so, and turns it away after that', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database, { migrations: NEWER })
    await migrate(database)
    assert.equal(await hasNote(database), true)
    await migrate(database, { migrations: NEWEST, noticeSeconds: 0 })
    await assert.rejects(migrate(database), (error) => {
      assert.ok(error instanceof PosthornError)
      assert.equal(error.code, 'POSTHORN_SCHEMA_TOO_NEW')
      assert.partialDeepStrictEqual(error.details, { found: 3, known: 1 })
      return true
    })
    assert.equal((await versionOf(database)).version, 3)
  })

  test('is left as it was by a step that fails', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database)
    const broken = { text: `${TO_VERSION_2.text}; SELECT nothing`, compatibleFrom: 1 }
    await assert.rejects(migrate(database, { migrations: [...MIGRATIONS, broken] }), {
      code: 'POSTHORN_STORAGE_FAILED',
    })
    assert.equal(await hasNote(database), false)
    assert.equal((await versionOf(database)).version, 1)
    await migrate(database, { migrations: NEWER })
    assert.equal(await hasNote(database), true)
  })

  test('waits for a transaction that uses a table without keeping others from it, and goes on after it', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database)
    const end = await hold(context, database, 'SELECT FROM @.topics')
    const migrated = migrate(database, { migrations: NEWER, lockMsMax: 50 })
    await until(() => hasRunningWait(database))
    // It is queued behind the step's request for a lock, and is served when that is given up.
    await query(database, 'SELECT FROM @.topics')
    assert.equal(await hasNote(database), false)
    await end()
    await migrated
    assert.equal(await hasNote(database), true)
  })

  test('is refused when a table stays locked', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database)
    const end = await hold(context, database, 'SELECT FROM @.topics')
    const refused = migrate(database, { migrations: NEWER, lockMsMax: 10, triesMax: 2 })
    await assert.rejects(refused, { code: 'POSTHORN_STORAGE_FAILED' })
    await end()
    assert.equal((await versionOf(database)).version, 1)
  })

  test('is brought up to date by another process when one is halted in the middle of a step', async (context) => {
    const url = await newStore(context)
    const database = openDatabase(context, url)
    await migrate(database)
    const proxy = await PostgresProxy.start(context, url)
    const end = await hold(context, database, 'SELECT FROM @.topics')
    const halted = migrate(openDatabase(context, proxy.url), { migrations: NEWER, idleMsMax: 100 })
    const ended = assert.rejects(halted, { code: 'POSTHORN_STORAGE_UNAVAILABLE' })
    await until(() => hasRunningWait(database))
    proxy.freeze()
    await end()
    await migrate(database, { migrations: NEWER })
    assert.equal((await versionOf(database)).version, 2)
    proxy.thaw()
    await ended
  })

  test('is not waited for when the server does not answer', async (context) => {
    const proxy = await PostgresProxy.start(context, await newStore(context))
    const { connect } = pg.Client.prototype
    context.mock.method(pg.Client.prototype, 'connect', async function (this: pg.Client) {
      await Reflect.apply(connect, this, [])
      proxy.freeze()
    } as () => Promise<never>)
    const migrating = migrate(openDatabase(context, proxy.url), { answerMsMax: 1_000 })
    await assert.rejects(migrating, { name: 'PosthornError', retryable: true })
  })

  test('serves a role that may create nothing, once everything is there', async (context) => {
    const url = await newStore(context)
    const database = openDatabase(context, url)
    const limited = await withoutPrivileges(context, database, url)
    await assert.rejects(migrate(limited), { code: 'POSTHORN_STORAGE_UNAVAILABLE' })
    await migrate(database)
    await query(database, `GRANT SELECT ON @.schema_version TO ${database.address.schema}_user`)
    await migrate(limited)
    await assert.rejects(migrate(limited, { migrations: NEWER }), { code: 'POSTHORN_STORAGE_UNAVAILABLE' })
    assert.equal((await versionOf(database)).version, 1)
  })
})
