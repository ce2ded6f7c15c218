/** Every recipe of docs/outbox.md, on a real server. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { connect, type Post, silentLogger, type TransactionalContext } from 'posthorn'
import { newSchema, whyNoPostgres } from '../../test/servers/shared-postgres.ts'
import { users, withDrizzle } from './drizzle.ts'
import { invoiceWritten, orderPaid, writeInvoices } from './handler.ts'
import { withKnex } from './knex.ts'
import { withKysely } from './kysely.ts'
import { withPg } from './pg.ts'
import { withPrisma } from './prisma.ts'
import { signUpTwice } from './publish-after.ts'
import { type Recipe, userSignedUp } from './recipe.ts'
import { withTypeOrm } from './typeorm.ts'

const recipes: Readonly<Record<string, Recipe>> = {
  pg: withPg,
  Drizzle: withDrizzle,
  Kysely: withKysely,
  Prisma: withPrisma,
  Knex: withKnex,
  TypeORM: withTypeOrm,
}

interface Site {
  readonly post: Post
  /** Of the database, as the site's own code connects to it. */
  readonly url: string
  readonly pool: pg.Pool
}

/** A site with its tables and Posthorn's in one schema. `close`: what has to be closed before them. */
async function newSite(context: TestContext, close: (() => Promise<void>)[] = []): Promise<Site> {
  const { url, name, drop } = await newSchema()
  const address = new URL(url)
  address.searchParams.set('schema', name)
  const pool = new pg.Pool({ connectionString: url })
  const post = await connect(address, { environment: { logger: silentLogger } })
  context.after(async () => {
    for (const part of close) await part()
    await post.close()
    await pool.end()
    await drop()
  })
  await pool.query('CREATE TABLE users (email text PRIMARY KEY)')
  await pool.query('CREATE TABLE invoices (order_id text, total numeric)')
  await post.ensureTopics(userSignedUp)
  return { post, url, pool }
}

async function countOf(pool: pg.Pool, table: string): Promise<number> {
  const { rows } = await pool.query<{ count: string }>(`SELECT count(*) FROM ${table}`)
  return Number(rows[0]?.count)
}

describe('a sign-up whose row and event are one transaction', { skip: await whyNoPostgres() }, () => {
  for (const [library, recipe] of Object.entries(recipes)) {
    test(`with ${library}`, async (context) => {
      const close: (() => Promise<void>)[] = []
      const { post, url, pool } = await newSite(context, close)
      const site = await recipe(post, url)
      close.push(() => site.close())
      const greeted: string[] = []
      const both = Promise.withResolvers<void>()
      const greet = post.subscribe(userSignedUp, 'welcome-email', ({ data }) => {
        greeted.push(data.email)
        if (greeted.includes('ada@example.com') && greeted.includes('eva@example.com')) both.resolve()
      })
      await greet.ready
      await site.signUp('ada@example.com')
      await assert.rejects(site.signUp('ada@example.com'))
      await site.signUp('eva@example.com')
      await both.promise
      assert.deepEqual(greeted.sort(), ['ada@example.com', 'eva@example.com'])
      assert.equal(await countOf(pool, 'users'), 2)
    })
  }

  test('which two writes are not', async (context) => {
    const { post, pool } = await newSite(context)
    const signUp = signUpTwice(post, pool)
    await signUp('ada@example.com')
    await post.close()
    await assert.rejects(signUp('eva@example.com'), { code: 'POSTHORN_CLOSED' })
    assert.equal(await countOf(pool, 'users'), 2)
    assert.equal(await countOf(pool, 'messages'), 1)
  })
})

test('a handler that hands its transaction to Drizzle', { skip: await whyNoPostgres() }, async (context) => {
  const { post, pool } = await newSite(context)
  const attempts: number[] = []
  const done = Promise.withResolvers<void>()
  const subscription = post.subscribe(
    userSignedUp,
    'accounts',
    async ({ data }, { tx, attempt }: TransactionalContext<pg.PoolClient>) => {
      await drizzle({ client: tx }).insert(users).values(data)
      if (attempts.push(attempt) === 1) throw new Error('Too early.')
      done.resolve()
    },
    { transactional: true, retry: { attempts: 2, backoff: { delay: 0 } } },
  )
  await subscription.ready
  await post.publish(userSignedUp, { email: 'ada@example.com' })
  await done.promise
  await subscription.close()
  assert.deepEqual(attempts, [1, 2])
  assert.equal(await countOf(pool, 'users'), 1)
})

test('a handler whose writes and acknowledgement are one', { skip: await whyNoPostgres() }, async (context) => {
  const { post, pool } = await newSite(context)
  const written = Promise.withResolvers<string>()
  await post.subscribe(invoiceWritten, 'archive', (event) => written.resolve(event.data.orderId)).ready
  await writeInvoices(post)
  await post.publish(orderPaid, { orderId: 'o-1', total: 40 })
  assert.equal(await written.promise, 'o-1')
  assert.equal(await countOf(pool, 'invoices'), 1)
})
