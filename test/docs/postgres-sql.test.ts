/** The SQL of the documentation that is for psql runs on a store that Posthorn made, and its roles can do what they are to. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import pg from 'pg'
import { connect, type Post, silentLogger, topic } from 'posthorn'
import { newDatabase, type TestSpace, whyNoPostgres } from '../servers/shared-postgres.ts'
import { type Block, blocksOf, isForPsql, readPages } from './pages.ts'

const pages = await readPages()
const statements = pages.flatMap((page) => {
  return blocksOf(page).flatMap((block) => (isForPsql(block) ? [{ page, block }] : []))
})
const isGrant = ({ block }: { block: Block }) => block.code.startsWith('GRANT')
const isEmptyWell = ({ block }: { block: Block }) => block.before.includes('find nothing')

const ROLES = ['app', 'site', 'reader']
const orders = topic<{ readonly orderId: string; readonly total: number }>('order.placed')

describe('SQL in the documentation, for Postgres', { skip: await whyNoPostgres() }, () => {
  let space: TestSpace
  let post: Post
  let owner: pg.Client

  // Roles belong to the whole server.
  const roleOf = (name: string) => `${space.name}_${name}`
  const urlOf = (name: string) => {
    const url = new URL(space.url)
    url.username = roleOf(name)
    url.password = 'secret'
    return url
  }

  before(async () => {
    space = await newDatabase()
    post = await connect(space.url)
    await post.subscribe(orders, 'invoices', () => {}).ready
    await post.publish(orders, { orderId: 'o-1', total: 40 }, { key: 'o-1' })
    owner = new pg.Client({ connectionString: space.url })
    await owner.connect()
    for (const role of ROLES) await owner.query(`CREATE ROLE ${roleOf(role)} LOGIN PASSWORD 'secret'`)
    for (const { block } of statements.filter(isGrant)) {
      await owner.query(block.code.replaceAll(/\b(?:app|site|reader)\b/g, (name) => roleOf(name)))
    }
  })

  after(async () => {
    for (const role of ROLES) await owner.query(`DROP OWNED BY ${roleOf(role)}; DROP ROLE ${roleOf(role)}`)
    await owner.end()
    await post.close()
    await space.drop()
  })

  async function asRole<Value>(name: string, use: (client: pg.Client) => Promise<Value>): Promise<Value> {
    const client = new pg.Client({ connectionString: urlOf(name).href })
    await client.connect()
    try {
      return await use(client)
    } finally {
      await client.end()
    }
  }

  for (const statement of statements.filter((each) => !isGrant(each))) {
    test(`${statement.page.path}:${statement.block.line}`, async () => {
      const { rowCount } = await owner.query(statement.block.code)
      assert.equal(rowCount === 0, isEmptyWell(statement), `it found ${rowCount} rows`)
    })
  }

  test('a role that owns nothing publishes, consumes and operates', async () => {
    const app = await connect(urlOf('app'), { environment: { logger: silentLogger } })
    try {
      const payments = topic<number>('order.paid')
      const paid = Promise.withResolvers<number>()
      app.subscribe(payments, 'ledger', ({ data }, { step }) => step('pay', () => paid.resolve(data)), {
        ordered: true,
        rateLimit: { limit: 100, per: '1s' },
        maxInFlight: 10,
        breaker: true,
      })
      await app.publish(payments, 5, { id: 'p-5' })
      assert.equal(await paid.promise, 5)
      assert.deepEqual(await app.admin.checkIntegrity(), [])
      await app.admin.deleteSubscription(payments, 'ledger')
      await app.admin.deleteTopic(payments)
    } finally {
      await app.close()
    }
  })

  test('a role that only writes to the outbox publishes in its transactions', async () => {
    const order = { orderId: 'o-2', total: 1 }
    const duplicate = await asRole('site', async (client) => {
      await client.query('BEGIN')
      await post.publish(orders, order, { tx: client, id: 'o-2' })
      const { duplicate } = await post.publish(orders, order, { tx: client, id: 'o-2' })
      await client.query('COMMIT')
      return duplicate
    })
    assert.equal(duplicate, true)
    await assert.rejects(
      asRole('site', (client) => client.query('SELECT FROM posthorn.messages')),
      { code: '42501' },
    )
  })

  test('a role that only reads sees the views, and nothing else', async () => {
    await asRole('reader', async (client) => {
      assert.ok((await client.query('SELECT * FROM posthorn.messages')).rowCount! > 0)
      assert.equal((await client.query('SELECT * FROM posthorn.backlog')).rowCount, 1)
      await assert.rejects(client.query('SELECT FROM posthorn.batches'), { code: '42501' })
    })
  })

  test('there is SQL', () => assert.ok(statements.length >= 8))
})
