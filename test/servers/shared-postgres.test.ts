import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { Client } from 'pg'
import { newDatabase, newSchema, sharedPostgres, whyNoPostgres } from './shared-postgres.ts'

async function connect(context: TestContext, url: string): Promise<Client> {
  const client = new Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  context.after(() => client.end())
  return client
}

async function exists(context: TestContext, query: string, name: string): Promise<boolean> {
  const client = await connect(context, await sharedPostgres())
  return (await client.query(query, [name])).rowCount === 1
}

describe('the Postgres server that test files share', { skip: await whyNoPostgres() }, () => {
  for (const [kind, create, catalog] of [
    ['database', newDatabase, 'SELECT FROM pg_database WHERE datname = $1'],
    ['schema', newSchema, 'SELECT FROM pg_namespace WHERE nspname = $1'],
  ] as const) {
    test(`gives each test a ${kind} of its own`, async (context) => {
      const spaces = await Promise.all([create(), create()])
      const clients = await Promise.all(spaces.map((space) => connect(context, space.url)))
      await Promise.all(clients.map((client) => client.query('CREATE TABLE items (item int)')))
      await clients[0]!.query('INSERT INTO items VALUES (1)')
      assert.equal((await clients[1]!.query('SELECT FROM items')).rowCount, 0)
      for (const { name, drop } of spaces) {
        assert.equal(await exists(context, catalog, name), true)
        await drop()
        assert.equal(await exists(context, catalog, name), false)
      }
    })
  }
})
