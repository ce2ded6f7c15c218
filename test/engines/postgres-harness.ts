import pg from 'pg'
import { abandonPostgresEngine, connectPostgres } from '../../src/engines/postgres/index.ts'
import type { ConformanceHarness, UserDatabase } from '../conformance/index.ts'
import { sharedPostgres } from '../servers/shared-postgres.ts'

let stores = 0

const schemaOf = (store: string) => new URL(store).searchParams.get('schema')!

const isFirstBatch = (schema: string) => `
 WHERE partition = 0 AND topic_id = (SELECT topic_id FROM ${schema}.topics WHERE topic = $1)
   AND base_offset = (SELECT min(base_offset) FROM ${schema}.batches AS others
                       WHERE others.topic_id = batches.topic_id AND others.partition = 0)`

// One letter of the batch's text becomes another one, as if bits on the disk had flipped; it is still JSON.
const damageFirstBatch = (schema: string) => `
UPDATE ${schema}.batches SET data = replace(data, '"time"', '"tyme"') ${isFirstBatch(schema)}`

const deleteFirstBatch = (schema: string) => `DELETE FROM ${schema}.batches ${isFirstBatch(schema)}`

export const postgresHarness: ConformanceHarness = {
  capabilities: { durable: true, multiProcess: true, transactionalAppend: true, transactionalHandlers: true },
  newStore: async () => {
    const url = new URL(await sharedPostgres())
    url.searchParams.set('schema', `posthorn_${process.pid}_${stores++}`)
    return url.href
  },
  removeStore: (store) => withClient(store, (client) => client.query(`DROP SCHEMA ${schemaOf(store)} CASCADE`)),
  open: (store, options) => connectPostgres(store, options),
  crash: abandonPostgresEngine,
  corrupt: (store, topic) => harmFirstBatch(damageFirstBatch, store, topic),
  userDatabase: (store) => openUserDatabase(store),
}

/** A batch is damaged by being lost. */
export const losingHarness: ConformanceHarness = {
  ...postgresHarness,
  corrupt: (store, topic) => harmFirstBatch(deleteFirstBatch, store, topic),
}

function harmFirstBatch(harm: (schema: string) => string, store: string, topic: string): Promise<void> {
  return withClient(store, async (client) => {
    const { rowCount } = await client.query(harm(schemaOf(store)), [topic])
    if (rowCount !== 1) throw new Error(`${rowCount} batches were harmed, not one`)
  })
}

async function openUserDatabase(store: string): Promise<UserDatabase> {
  const client = await connect(store)
  const table = `${schemaOf(store)}.user_values`
  await client.query(`CREATE TABLE ${table} (value_id bigint GENERATED ALWAYS AS IDENTITY, value text NOT NULL)`)
  return {
    write: async (transaction, value) => {
      const { query } = transaction as { query?: unknown }
      if (typeof query !== 'function') throw new TypeError('the transaction is no connection')
      await (transaction as pg.ClientBase).query(`INSERT INTO ${table} (value) VALUES ($1)`, [value])
    },
    values: async () => {
      const { rows } = await client.query<{ value: string }>(`SELECT value FROM ${table} ORDER BY value_id`)
      return rows.map(({ value }) => value)
    },
    close: () => client.end(),
  }
}

async function withClient(store: string, use: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = await connect(store)
  try {
    await use(client)
  } finally {
    await client.end()
  }
}

async function connect(store: string): Promise<pg.Client> {
  const url = new URL(store)
  url.searchParams.delete('schema')
  const client = new pg.Client({ connectionString: url.href })
  await client.connect()
  return client
}
