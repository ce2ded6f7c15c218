/** What administrators do to connections, and to roles. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, type TestContext, test } from 'node:test'
import type pg from 'pg'
import { connect, type Post, silentLogger } from 'posthorn'
import { startPostgres } from '../../servers/postgres.ts'
import { whyNoOwnPostgres } from '../../servers/postgres-binaries.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import {
  atEnd,
  coded,
  events,
  eventually,
  Inbox,
  newStore,
  open,
  openClient,
  settled,
  storeUrl,
} from './faults-stage.ts'

const LISTENER = /^LISTEN|pg_notify/
const RENEWAL = /UPDATE .*sessions.* SET beat/

/** Of the server that is full, for everybody: the test has one itself. */
const CONNECTIONS = 14

interface Backend {
  readonly pid: number
  readonly query: string
}

async function backendsOf(admin: pg.Client, application: string): Promise<readonly Backend[]> {
  const text = 'SELECT pid, query FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start'
  return (await admin.query<Backend>(text, [application])).rows
}

async function terminate(admin: pg.Client, { pid }: Backend): Promise<void> {
  await admin.query('SELECT pg_terminate_backend($1, 5000)', [pid])
}

/** A connection of each kind is there. */
async function allBackends(admin: pg.Client, application: string): Promise<readonly Backend[]> {
  return eventually(async () => {
    const backends = await backendsOf(admin, application)
    assert.ok(
      backends.some(({ query }) => LISTENER.test(query)),
      'a listener',
    )
    assert.ok(
      backends.some(({ query }) => RENEWAL.test(query)),
      'a renewal',
    )
    return backends
  })
}

async function consumerIds(post: Post): Promise<readonly string[]> {
  return (await post.admin.consumers()).map(({ id }) => id)
}

async function newRole(context: TestContext, admin: pg.Client, settings: Readonly<Record<string, string>>) {
  const role = `posthorn_faults_${randomBytes(6).toString('hex')}`
  await admin.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'secret'`)
  atEnd(context, async () => {
    await admin.query(`DROP OWNED BY ${role} CASCADE`)
    await admin.query(`DROP ROLE ${role}`)
  })
  for (const [name, value] of Object.entries(settings)) await admin.query(`ALTER ROLE ${role} SET ${name} = '${value}'`)
  return role
}

function as(role: string, url: string): string {
  const address = new URL(url)
  address.username = role
  address.password = 'secret'
  return address.href
}

describe('connections that an administrator terminates', { skip: await whyNoPostgres() }, () => {
  test('one after the other, each comes back, with the session and without a loss', async (context) => {
    const application = `posthorn-${randomBytes(6).toString('hex')}`
    const { url, admin } = await newStore(context, { application_name: application })
    const post = await open(context, url, { lease: '1500ms' })
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    const session = await consumerIds(post)
    const labels: string[] = []
    const publish = async (label: string) => {
      await eventually(() => post.publish(events, { label }))
      labels.push(label)
      await inbox.has(labels)
    }
    await publish('before')
    for (const [number, backend] of (await allBackends(admin, application)).entries()) {
      await terminate(admin, backend)
      await publish(`after ${number}`)
    }
    await settled(post)
    await allBackends(admin, application)
    assert.deepEqual(await consumerIds(post), session)
    assert.deepEqual(inbox.labels.toSorted(), labels.toSorted())
  })

  test('the one that listens comes back, and hears what others publish', async (context) => {
    const application = `posthorn-${randomBytes(6).toString('hex')}`
    const { url, admin } = await newStore(context)
    const post = await open(context, storeUrl(url, { application_name: application }), { lease: '1500ms' })
    const publisher = await open(context, url)
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    for (let round = 0; round < 3; round++) {
      const [listener] = (await allBackends(admin, application)).filter(({ query }) => LISTENER.test(query))
      await terminate(admin, listener!)
      await publisher.publish(events, { label: `${round}` })
      await inbox.has([`${round}`])
    }
    await settled(post)
  })

  test('all at once, again and again, costs no message', async (context) => {
    const application = `posthorn-${randomBytes(6).toString('hex')}`
    const { url, admin } = await newStore(context)
    const post = await open(context, storeUrl(url, { application_name: application }), { lease: '60s' })
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    const labels = Array.from({ length: 400 }, (_, number) => `${number}`)
    const publishing = Promise.all(labels.map((label) => eventually(() => publishOnce(post, label))))
    for (let round = 0; round < 10; round++) {
      for (const backend of await backendsOf(admin, application)) await terminate(admin, backend)
    }
    await publishing
    await inbox.has(labels)
    await settled(post)
    assert.equal((await post.admin.topics())[0]!.messages, labels.length)
  })
})

/** As a publisher does that wants it stored once. */
async function publishOnce(post: Post, label: string): Promise<void> {
  try {
    await post.publish(events, { label }, { id: label })
  } catch (error) {
    coded('POSTHORN_STORAGE_UNAVAILABLE', 'POSTHORN_OUTCOME_UNKNOWN')(error)
    assert.fail('it is published again')
  }
}

describe('a server without a free connection', { skip: await whyNoOwnPostgres() }, () => {
  test('refuses with a coded error, and is used again once there is one', async (context) => {
    const server = await startPostgres({
      settings: { max_connections: CONNECTIONS + 1, superuser_reserved_connections: 1 },
    })
    atEnd(context, () => server.removeAll())
    const admin = await openClient(context, server.url)
    await admin.query(`CREATE ROLE app LOGIN PASSWORD 'secret'`)
    await admin.query('GRANT CREATE ON DATABASE postgres TO app')
    const url = as('app', server.url)
    const post = await open(context, url)
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    const unavailable = coded('POSTHORN_STORAGE_UNAVAILABLE')
    const fillers = await displace(context, admin, url)
    await assert.rejects(post.publish(events, { label: 'refused' }), unavailable)
    await assert.rejects(connect(url, { environment: { logger: silentLogger } }), unavailable)
    for (const filler of fillers) await filler.end()
    await eventually(() => post.publish(events, { label: 'stored' }))
    await inbox.has(['stored'])
    await settled(post)
    assert.deepEqual(inbox.labels, ['stored'])
  })
})

/** Takes all connections that there are, also those that others of the role have or are about to get. */
async function displace(context: TestContext, admin: pg.Client, url: string): Promise<pg.Client[]> {
  const fillers: pg.Client[] = []
  const others = `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                   WHERE usename = 'app' AND application_name <> 'filler'`
  while (fillers.length < CONNECTIONS - 1) {
    fillers.push(...(await fill(context, url)))
    await admin.query(others)
  }
  return fillers
}

async function fill(context: TestContext, url: string): Promise<pg.Client[]> {
  const fillers: pg.Client[] = []
  for (;;) {
    try {
      fillers.push(await openClient(context, storeUrl(url, { application_name: 'filler' })))
    } catch (error) {
      assert.equal((error as { code?: string }).code, '53300')
      return fillers
    }
  }
}

describe('a role with limits of its own', { skip: await whyNoPostgres() }, () => {
  for (const [name, settings] of Object.entries({
    'short statements': { statement_timeout: '1s' },
    'short waits for locks': { lock_timeout: '1s' },
    'short idle transactions': { idle_in_transaction_session_timeout: '1s' },
    'serializable transactions': { default_transaction_isolation: 'serializable' },
    'no waiting for the disk': { synchronous_commit: 'off' },
    'another style of everything': {
      datestyle: 'German, DMY',
      intervalstyle: 'sql_standard',
      timezone: 'Asia/Kathmandu',
      extra_float_digits: '0',
      bytea_output: 'escape',
      standard_conforming_strings: 'off',
      client_encoding: 'LATIN1',
      search_path: 'pg_catalog',
    },
  })) {
    test(`(${name}) is served like any other`, async (context) => {
      const { url, admin } = await newStore(context)
      const role = await newRole(context, admin, settings)
      const post = await open(context, as(role, url))
      const inbox = new Inbox()
      await post.subscribe(events, 'inbox', inbox.handler).ready
      const label = `Žluťoučký kůň, C:\\\\n 'quoted' ${'x'.repeat(10)}`
      await post.publish(events, { label }, { id: label })
      await post.publish(events, { label: 'later' }, { delay: 1 })
      await inbox.has([label, 'later'])
      await settled(post)
      assert.deepEqual(await post.admin.checkIntegrity(), [])
    })
  }

  test('(a statement that outlasts its limit) is told so, and may try again', async (context) => {
    const { url, admin, schema } = await newStore(context)
    const role = await newRole(context, admin, { statement_timeout: '200ms' })
    const post = await open(context, as(role, url))
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    await admin.query(`BEGIN; LOCK TABLE "${schema}".batches`)
    await assert.rejects(post.publish(events, { label: 'a' }, { id: 'a' }), (error) => {
      coded('POSTHORN_STORAGE_FAILED')(error)
      assert.equal((error as { retryable?: boolean }).retryable, true)
      return true
    })
    await admin.query('COMMIT')
    const { duplicate } = await post.publish(events, { label: 'a' }, { id: 'a' })
    assert.equal(duplicate, false)
    await inbox.has(['a'])
    await settled(post)
  })

  test('(on a server that only reads, as a replica does until it is promoted) is told so, and may try again', async (context) => {
    const { url, admin } = await newStore(context)
    const role = await newRole(context, admin, {})
    const post = await open(context, as(role, url))
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    await admin.query(`ALTER ROLE ${role} SET default_transaction_read_only = on`)
    await admin.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1', [role])
    await assert.rejects(post.publish(events, { label: 'a' }), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    await admin.query(`ALTER ROLE ${role} RESET default_transaction_read_only`)
    // Connections that were opened meanwhile would go on as they are; nobody ends them.
    await eventually(() => post.publish(events, { label: 'b' }))
    await inbox.has(['b'])
    await settled(post)
  })

  test('(a wait for another process that migrates) outlasts the limit of its statements', async (context) => {
    const { url, admin, schema } = await newStore(context)
    const role = await newRole(context, admin, { statement_timeout: '100ms', lock_timeout: '100ms' })
    const lock = `SELECT pg_advisory_lock(hashtextextended('posthorn migrations of "${schema}".', 0))`
    await admin.query(lock)
    const opening = open(context, as(role, url))
    const outcome = opening.then(
      () => 'open',
      (error) => error,
    )
    await admin.query('SELECT pg_sleep(0.4)')
    await admin.query('SELECT pg_advisory_unlock_all()')
    assert.equal(await outcome, 'open')
  })
})
