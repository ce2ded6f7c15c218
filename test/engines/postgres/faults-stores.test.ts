/** Several stores, roles and versions of Posthorn in one database, and servers whose clocks are wrong. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { describe, type TestContext, test } from 'node:test'
import type pg from 'pg'
import { connect, Discard, type Post, queue, silentLogger, topic } from 'posthorn'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { MIGRATIONS } from '../../../src/engines/postgres/sql/migrations.ts'
import { blocksOf, readPages } from '../../docs/pages.ts'
import { newDatabase, whyNoPostgres } from '../../servers/shared-postgres.ts'
import {
  atEnd,
  coded,
  events,
  eventually,
  Inbox,
  newStore,
  open,
  openClient,
  type Payload,
  settled,
  storeUrl,
} from './faults-stage.ts'

const SQL = new URL('../../../src/engines/postgres/sql/', import.meta.url)
const SERVER_CLOCKS = ['now', 'clock_timestamp', 'statement_timestamp', 'transaction_timestamp', 'timeofday']
const CLOCK_WORDS = new RegExp(
  `\\b(?:${SERVER_CLOCKS.join('|')}) *\\(|\\bcurrent_(?:timestamp|date|time)\\b|\\blocaltime|'(?:now|today)'`,
  'i',
)

const orders = topic<Payload>('orders', { key: ({ label }) => label, partitions: 2 })
const jobs = queue<Payload>('jobs')

interface QueryClient {
  query(text: string, values?: unknown[]): Promise<unknown>
}

/** A little of everything that a program does, and all that an operator does. */
async function useEverything(post: Post, own: pg.Client): Promise<void> {
  const inbox = new Inbox()
  const retry = { attempts: 2, backoff: { type: 'fixed', delay: 1 } } as const
  await post.subscribe(events, 'all', inbox.handler).ready
  await post.subscribe(
    orders,
    'ordered',
    async (event, context) => {
      await context.step('once', () => 1)
      if (event.data.label === 'dead') throw new Discard('on purpose')
      if (event.data.label === 'again' && context.attempt === 1) throw new Error('once')
      await inbox.handler(event)
    },
    { ordered: true, retry, maxInFlight: 5, rateLimit: { limit: 1_000, per: '1s' } },
  ).ready
  await post.subscribe(
    jobs,
    async (event, { tx }) => {
      await (tx as unknown as QueryClient).query('SELECT 1')
      await post.publish(events, { label: `job ${event.data.label}` }, { tx })
      await inbox.handler(event)
    },
    { transactional: true },
  ).ready
  await post.publish(events, { label: 'plain' })
  await post.publish(events, { label: 'id' }, { id: 'id' })
  await post.publish(events, { label: 'id' }, { id: 'id' })
  await post.publish(events, { label: 'high' }, { priority: 'high' })
  await post.publish(events, { label: 'delayed' }, { delay: 1 })
  await post.publish(events, { label: 'never' }, { delay: '1h', id: 'never' })
  await post.publishAll(orders, [{ label: 'order' }, { label: 'again' }, { label: 'dead' }])
  await post.publish(jobs, { label: 'job' })
  await own.query('BEGIN')
  await post.publish(events, { label: 'tx' }, { tx: own })
  await own.query('COMMIT')
  await inbox.has(['plain', 'id', 'high', 'delayed', 'order', 'again', 'job', 'job job', 'tx'])
  await operate(post)
}

async function operate({ admin }: Post): Promise<void> {
  await admin.cancel(events, 'never')
  await eventually(async () => assert.equal((await admin.deadLetters(orders, 'ordered')).length, 1))
  await admin.redrive(orders, 'ordered')
  await eventually(async () => assert.equal((await admin.deadLetters(orders, 'ordered')).length, 1))
  await admin.deleteDeadLetters(orders, 'ordered')
  await admin.pause(events, 'all')
  await admin.resume(events, 'all')
  await admin.replay(events, 'all', 'earliest')
  await admin.consumers()
  await admin.topics()
  await admin.subscriptions()
  await admin.peek(events, { limit: 1 })
  await admin.applyRetention()
  assert.deepEqual(await admin.checkIntegrity(), [])
  await admin.purge(events)
  await admin.deleteSubscription(events, 'all')
  await admin.deleteTopic(events)
}

function as(role: string, url: string): string {
  const address = new URL(url)
  address.username = role
  address.password = 'secret'
  return address.href
}

/** An owner of the tables, and a role that is given what the documentation says. */
async function newRoles(context: TestContext, admin: pg.Client, url: string, schema: string) {
  const [owner, app] = [`${schema}_owner`, `${schema}_app`]
  for (const role of [owner, app]) {
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
    atEnd(context, () => admin.query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`))
  }
  await admin.query(`GRANT CREATE ON DATABASE ${admin.database} TO ${owner}`)
  const text = await documentedGrants()
  const grants = text.replaceAll('SCHEMA posthorn', `SCHEMA ${schema}`).replaceAll(/\bapp\b/g, app)
  const client = await openClient(context, as(owner, url.split('?')[0]!))
  return { owner, app, client, grant: () => client.query(grants) }
}

async function documentedGrants(): Promise<string> {
  const pages = await readPages()
  const blocks = pages.flatMap(blocksOf).filter(({ code }) => code.includes('ON ALL TABLES IN SCHEMA'))
  assert.equal(blocks.length, 1)
  return blocks[0]!.code
}

describe('a role that may do no more than it must', { skip: await whyNoPostgres() }, () => {
  for (const first of ['the tables', 'the privileges'] as const) {
    test(`does everything, and creates nothing, if ${first} came first`, async (context) => {
      const { url, schema, admin } = await newStore(context)
      const { owner, app, client, grant } = await newRoles(context, admin, url, schema)
      if (first === 'the privileges') {
        await client.query(`CREATE SCHEMA ${schema}`)
        await grant()
      }
      await (await open(context, as(owner, url))).close()
      if (first === 'the tables') {
        await assert.rejects(connect(as(app, url)), coded('POSTHORN_STORAGE_UNAVAILABLE'))
        await grant()
      }
      const post = await open(context, as(app, url))
      const own = await openClient(context, as(app, url.split('?')[0]!))
      await useEverything(post, own)
      for (const text of [
        `CREATE TABLE ${schema}.mine ()`,
        `DROP TABLE ${schema}.topics`,
        `TRUNCATE ${schema}.batches`,
      ]) {
        await assert.rejects(own.query(text), { code: '42501' })
      }
    })
  }

  test('is told so when the tables are not there, which it may not make', async (context) => {
    const { url, schema, admin } = await newStore(context)
    const { app } = await newRoles(context, admin, url, schema)
    await assert.rejects(connect(as(app, url)), coded('POSTHORN_STORAGE_UNAVAILABLE'))
  })
})

describe('stores in one database', { skip: await whyNoPostgres() }, () => {
  const longest = `posthorn_${randomBytes(27).toString('hex')}`
  for (const schema of ['user', 'a$', 'Upper', 'with space', longest, `${longest}x`]) {
    const isTaken = /^[a-z_]{1,63}$|^posthorn_.{54}$/.test(schema)
    test(`${isTaken ? 'take' : 'refuse'} the schema ${schema}`, async (context) => {
      if (!isTaken) {
        const url = storeUrl('postgres://user@127.0.0.1/database', { schema })
        return assert.rejects(connect(url), coded('POSTHORN_INVALID_OPTION'))
      }
      const database = await newDatabase()
      atEnd(context, () => database.drop())
      const url = storeUrl(database.url, { schema })
      const posts = [await open(context, url), await open(context, url)]
      await useEverything(posts[0]!, await openClient(context, database.url))
    })
  }

  test('know nothing of each other', async (context) => {
    const [one, other] = [await newStore(context), await newStore(context)]
    const inboxes = [new Inbox(), new Inbox()]
    const posts = [await open(context, one.url), await open(context, other.url)]
    for (const [number, post] of posts.entries()) await post.subscribe(events, 'all', inboxes[number]!.handler).ready
    const own = await openClient(context, one.url)
    await own.query('BEGIN')
    for (const [number, post] of posts.entries()) {
      await post.publish(events, { label: `direct ${number}` }, { id: 'same' })
      await post.publish(events, { label: `within ${number}` }, { tx: own })
    }
    await own.query('COMMIT')
    for (const [number, inbox] of inboxes.entries()) await inbox.has([`direct ${number}`, `within ${number}`])
    for (const [number, post] of posts.entries()) {
      await settled(post)
      assert.equal(inboxes[number]!.labels.length, 2)
      assert.equal((await post.admin.consumers()).length, 1)
    }
  })
})

describe('versions of Posthorn on one store', { skip: await whyNoPostgres() }, () => {
  const addition = { text: 'ALTER TABLE @.topics ADD COLUMN later text', compatibleFrom: 1 }
  const removal = { text: 'ALTER TABLE @.topics DROP COLUMN later', compatibleFrom: MIGRATIONS.length + 1 }

  test('work side by side while the newer one is rolled out, and the older one is refused after it', async (context) => {
    const { url } = await newStore(context)
    const post = await open(context, url)
    const inbox = new Inbox()
    await post.subscribe(events, 'all', inbox.handler).ready
    const database = new Database(parsePostgresAddress(url))
    atEnd(context, () => database.close())
    const labels = Array.from({ length: 100 }, (_, number) => `${number}`)
    const publishing = Promise.all(labels.map((label) => post.publish(events, { label })))
    await migrate(database, { migrations: [...MIGRATIONS, addition] })
    await publishing
    const late = await open(context, url)
    await late.publish(events, { label: 'late' })
    await inbox.has([...labels, 'late'])
    await settled(late)
    await migrate(database, { migrations: [...MIGRATIONS, addition, removal] })
    await assert.rejects(connect(url), coded('POSTHORN_SCHEMA_TOO_NEW'))
  })
})

describe("a server whose clock is wrong, as another one's may be after a failover", {
  skip: await whyNoPostgres(),
}, () => {
  test('is asked for the time by no statement', async () => {
    for (const name of await readdir(SQL)) {
      const text = await readFile(new URL(name, SQL), 'utf8')
      assert.doesNotMatch(text, CLOCK_WORDS, name)
    }
    for (const word of ['now()', 'CURRENT_TIMESTAMP', 'clock_timestamp ()', 'localtimestamp', "'now'::timestamptz"]) {
      assert.match(`SELECT ${word}`, CLOCK_WORDS)
    }
  })

  test('is not noticed: a server on which asking fails serves everything', async (context) => {
    const { url, schema, admin } = await newStore(context)
    const trap = `${schema}_trap`
    await admin.query(`CREATE SCHEMA "${trap}"`)
    atEnd(context, () => admin.query(`DROP SCHEMA "${trap}" CASCADE`))
    for (const clock of SERVER_CLOCKS) {
      const body = "BEGIN RAISE EXCEPTION 'the server was asked for the time'; END"
      await admin.query(`CREATE FUNCTION "${trap}".${clock}() RETURNS timestamptz LANGUAGE plpgsql AS $$${body}$$`)
    }
    const trapped = storeUrl(url, { options: `-c search_path=${trap},pg_catalog` })
    await assert.rejects((await openClient(context, trapped)).query('SELECT now()'), /asked for the time/)
    await useEverything(await open(context, trapped, { environment: { logger: silentLogger } }), admin)
  })
})
