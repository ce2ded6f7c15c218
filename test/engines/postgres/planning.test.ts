import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type pg from 'pg'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import type { Statement } from '../../../src/engines/postgres/database/statement.ts'
import { log } from '../../../src/engines/postgres/sql/log.ts'
import { settlement } from '../../../src/engines/postgres/sql/settlement.ts'
import { turns } from '../../../src/engines/postgres/sql/turns.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { newStore, openDatabase, query } from './space.ts'

const SETTINGS = [
  ...['plan_cache_mode', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin'],
  ...['jit', 'idle_in_transaction_session_timeout', 'lock_timeout', 'role', 'search_path'],
]

/** Ways of going through all that there is for the few rows that are wanted. */
const READS_EVERYTHING = /Seq Scan|Hash Join|Merge Join/

const NEVER_READ_EVERYTHING: readonly (readonly [Statement, ...unknown[]])[] = [
  [log.heads, [1], [0]],
  [log.describe, [1], { '1/0': 0 }, 512],
  [log.read, [1], [0], [0], [1]],
  [turns.lock, [1]],
  [turns.load, [1], [0]],
  [turns.prune, [1], [0], [32]],
  [settlement.due, 1, 0, 1, [], 2, 64],
]

async function settingsOf(client: pg.ClientBase): Promise<unknown[]> {
  const columns = SETTINGS.map((name) => `current_setting('${name}')`)
  const { rows } = await client.query<unknown[]>({ text: `SELECT ${columns.join(', ')}`, rowMode: 'array' })
  return rows[0] as unknown[]
}

function literal(value: unknown): string {
  if (Array.isArray(value)) return `'{${value.join(',')}}'`
  return typeof value === 'object' ? `'${JSON.stringify(value)}'` : String(value)
}

describe('the plans of the engine in Postgres', { skip: await whyNoPostgres(), concurrency: true }, () => {
  test('follow indexes, even those made while there is nothing', async (context) => {
    const database = openDatabase(context, await newStore(context))
    await migrate(database)
    // Now the server knows that there is nothing in them, and that to read all of it is the cheapest.
    for (const table of ['batches', 'states', 'set_aside']) await query(database, `VACUUM (ANALYZE) @.${table}`)
    for (const [statement, ...values] of NEVER_READ_EVERYTHING) {
      const plan = await database.transaction(async (rows, client) => {
        await rows.rows(statement, ...values)
        const execution = `EXECUTE posthorn_${statement.name}(${values.map(literal).join(', ')})`
        const explained = await client.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${execution}`)
        return explained.rows.map((row) => row['QUERY PLAN']).join('\n')
      })
      assert.doesNotMatch(plan, READS_EVERYTHING, statement.name)
    }
  })

  test('say nothing of what the user sends over a connection that is lent', async (context) => {
    const url = new URL(await newStore(context))
    url.searchParams.set('connections', '2')
    url.searchParams.set('options', '-c enable_hashjoin=off')
    const database = openDatabase(context, url.href)
    const own = ['force_generic_plan', 'off', 'off', 'off', 'off', '5s', '20s', 'none', '"$user", public']
    const [before, lent] = await database.transaction(async (_rows, client) => {
      const before = await settingsOf(client)
      database.lend(client)
      return [before, await settingsOf(client)]
    })
    assert.deepEqual(before, own)
    assert.deepEqual(lent!.slice(0, 4), ['auto', 'on', 'off', 'on'])
    assert.deepEqual(lent!.slice(5, 7), ['0', '0'])
    assert.deepEqual(await database.transaction((_rows, client) => settingsOf(client)), own)
  })

  for (const [where, pooling, own] of [
    ['', 'session', 'force_generic_plan'],
    [', behind a pooler, too', 'transaction', 'auto'],
  ] as const) {
    test(`are the engine's again after the user has set anything${where}`, async (context) => {
      const url = new URL(await newStore(context))
      url.searchParams.set('connections', '2')
      url.searchParams.set('pooling', pooling)
      const database = openDatabase(context, url.href)
      const ofEngine = [own, '5s', '20s', 'none', '"$user", public']
      const chosen = async (client: pg.ClientBase) => {
        const [plan, , , , , ...others] = await settingsOf(client)
        return [plan, ...others]
      }
      const after = await database.transaction(async (_rows, client) => {
        database.lend(client)
        await client.query(`SET search_path = nowhere; SET lock_timeout = '1ms'; SET LOCAL ROLE pg_monitor`)
        database.takeBack(client)
        return chosen(client)
      })
      assert.deepEqual(after, ofEngine)
      assert.deepEqual(await database.transaction((_rows, client) => chosen(client)), ofEngine)
    })
  }
})
