/** Behind PgBouncer in transaction mode, with fewer connections to the server than clients have to it. */
import assert from 'node:assert/strict'
import { after, before, describe, type TestContext, test } from 'node:test'
import {
  type DeliveryContext,
  type Post,
  type PostgresTransaction,
  queue,
  type TransactionalContext,
  topic,
} from 'posthorn'
import { type PgBouncer, startPgBouncer, whyNoPgBouncer } from '../../servers/pgbouncer.ts'
import { sharedPostgres, whyNoPostgres } from '../../servers/shared-postgres.ts'
import { Publishing } from './faults-publishing.ts'
import {
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

const SERVER_CONNECTIONS = 4
const keyed = topic<Payload>('keyed', { key: ({ label }) => label[0]!, partitions: 4 })
const jobs = queue<Payload>('jobs')

let bouncer: PgBouncer

/** Addresses of the same store: through PgBouncer, and straight to the server. */
async function newPooledStore(context: TestContext) {
  const { url, schema, admin } = await newStore(context)
  return { url: storeUrl(bouncer.url, { schema, pooling: 'transaction' }), direct: url, schema, admin }
}

/** Two processes, as far as the server is concerned. */
async function openTwo(context: TestContext, url: string): Promise<readonly [Post, Post]> {
  return [await open(context, url), await open(context, url)]
}

describe('behind PgBouncer', { skip: (await whyNoPostgres()) || (await whyNoPgBouncer()) }, () => {
  before(async () => {
    bouncer = await startPgBouncer(await sharedPostgres(), SERVER_CONNECTIONS)
  })
  after(() => bouncer.removeAll())

  test('messages are handled, tried again and buried', async (context) => {
    const { url } = await newPooledStore(context)
    const [publisher, consumer] = await openTwo(context, url)
    const attempts: string[] = []
    const handler = async ({ data }: { data: Payload }) => {
      attempts.push(data.label)
      if (data.label === 'bad') throw new Error('as it was told')
    }
    const retry = { attempts: 2, backoff: { delay: '1ms' } } as const
    await consumer.subscribe(events, 'all', handler, { retry }).ready
    await publisher.publishAll(events, [{ label: 'good' }, { label: 'bad' }])
    await eventually(async () => assert.equal((await publisher.admin.subscriptions())[0]?.deadLetters, 1))
    assert.deepEqual(attempts.toSorted(), ['bad', 'bad', 'good'])
  })

  test('order is kept over several processes', async (context) => {
    const { url } = await newPooledStore(context)
    const [publisher, other] = await openTwo(context, url)
    const inbox = new Inbox()
    for (const post of [publisher, other]) await post.subscribe(keyed, 'all', inbox.handler, { ordered: true }).ready
    const labels = Array.from({ length: 200 }, (_, number) => `${'abcdefgh'[number % 8]}${Math.floor(number / 8)}`)
    await Promise.all(labels.map((label) => publisher.publish(keyed, { label })))
    await settled(publisher)
    for (const key of 'abcdefgh') {
      const ofKey = (all: readonly string[]) => all.filter((label) => label[0] === key)
      assert.deepEqual(ofKey(inbox.labels), ofKey(labels))
    }
  })

  test('a transaction of the user publishes, and a handler commits with its message', async (context) => {
    const { url, schema, admin } = await newPooledStore(context)
    await admin.query(`CREATE SCHEMA IF NOT EXISTS "${schema}"; CREATE TABLE "${schema}".notes (note text)`)
    const post = await open(context, url)
    const note = `INSERT INTO "${schema}".notes VALUES ($1)`
    const handler = async ({ data }: { data: Payload }, { tx }: TransactionalContext<PostgresTransaction>) => {
      await tx.query(note, [`handled ${data.label}`])
    }
    await post.subscribe(events, 'all', handler, { transactional: true }).ready
    const client = await openClient(context, bouncer.url)
    for (const [label, end] of [
      ['kept', 'COMMIT'],
      ['dropped', 'ROLLBACK'],
    ] as const) {
      await client.query('BEGIN')
      await client.query(note, [label])
      await post.publish(events, { label }, { tx: client })
      await client.query(end)
    }
    await settled(post)
    const notes = async () => (await admin.query(`SELECT note FROM "${schema}".notes ORDER BY note`)).rows
    await eventually(async () => assert.deepEqual(await notes(), [{ note: 'handled kept' }, { note: 'kept' }]))
  })

  test("the statement of a handler's transaction that outruns its time is cancelled", async (context) => {
    const { url, schema, admin } = await newPooledStore(context)
    const post = await open(context, url)
    const long = `SELECT pg_sleep(600) AS ${schema}`
    const handler = async (_: unknown, { tx }: TransactionalContext<PostgresTransaction>) => {
      await tx.query(long)
    }
    const options = { transactional: true, timeout: '2s', retry: { attempts: 1 } } as const
    await post.subscribe(events, 'all', handler, options).ready
    await post.publish(events, { label: 'a' })
    const running = `SELECT pid FROM pg_stat_activity WHERE query = $1 AND state = 'active'`
    const runs = async () => (await admin.query(running, [long])).rowCount === 1
    await eventually(async () => assert.equal(await runs(), true))
    await eventually(async () => assert.equal(await runs(), false))
  })

  test('a consumer whose handlers are all busy is told that its message was cancelled', async (context) => {
    const { url } = await newPooledStore(context)
    const [publisher, consumer] = await openTwo(context, url)
    const { promise: began, resolve: begin } = Promise.withResolvers<void>()
    const { promise: told, resolve: tell } = Promise.withResolvers<void>()
    const handler = async (_: unknown, { signal }: DeliveryContext) => {
      begin()
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
      tell()
    }
    await consumer.subscribe(jobs, handler, { concurrency: 1 }).ready
    await publisher.publish(jobs, { label: 'a' }, { id: 'a' })
    // More than a process fetches ahead, so that it asks for nothing.
    await publisher.publishAll(
      jobs,
      Array.from({ length: 5_000 }, (_, number) => ({ label: `${number}` })),
    )
    await began
    await eventually(async () => assert.ok((await publisher.admin.subscriptions())[0]!.leased > 1))
    await publisher.admin.cancel(jobs, 'a')
    await told
  })

  test('all goes on when it has been killed', async (context) => {
    const { url, direct } = await newPooledStore(context)
    const [publisher, consumer] = await openTwo(context, url)
    const inbox = new Inbox()
    await consumer.subscribe(events, 'all', inbox.handler).ready
    const publishing = new Publishing(publisher, 'publisher')
    await publishing.goesOn()
    await bouncer.kill()
    await eventually(() => assert.ok(publishing.refused > 0))
    await bouncer.restart()
    await publishing.goesOn()
    const acknowledged = await publishing.stop()
    await inbox.has(acknowledged)
    assert.deepEqual(await (await open(context, direct)).admin.checkIntegrity(), [])
  })

  test('an address that does not say so is told what to add', async (context) => {
    const { schema, url } = await newPooledStore(context)
    await (await open(context, url)).ensureTopics(events)
    // All that is asked for is given the same connection of the server, whoever has prepared what on it.
    for (let held = 1; held < SERVER_CONNECTIONS; held++) await (await openClient(context, bouncer.url)).query('BEGIN')
    const sayIt = async () => {
      const post = await open(context, storeUrl(bouncer.url, { schema }))
      await Promise.all(Array.from({ length: 10 }, () => post.admin.subscriptions()))
    }
    await assert.rejects(sayIt, (error: Error) => {
      assert.match(error.message, /add \?pooling=transaction/)
      return coded('POSTHORN_STORAGE_FAILED')(error)
    })
  })
})
