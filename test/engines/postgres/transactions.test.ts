/** What is left of a transaction that fails: whose BEGIN or COMMIT was cancelled, as an administrator may do at any moment. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import pg from 'pg'
import type { Statement } from '../../../src/engines/postgres/database/statement.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { newStore, openDatabase, query } from './space.ts'

const look: Statement = { name: 'test_look', text: 'SELECT FROM @.notes' }
const note: Statement = { name: 'test_note', text: 'INSERT INTO @.notes VALUES (1)' }
const conflict: Statement = { name: 'test_conflict', text: `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$` }

/** The server refuses the next statement that begins so, and carries out nothing of it. */
function refuseNext(context: TestContext, start: string): void {
  const { query: send } = pg.Client.prototype
  const mocked = context.mock.method(pg.Client.prototype, 'query', function (this: pg.Client, ...values: unknown[]) {
    const isIt = typeof values[0] === 'string' && values[0].startsWith(start)
    if (isIt) mocked.mock.restore()
    return Reflect.apply(send, this, isIt ? ['SELECT what_is_not_there'] : values)
  } as typeof send)
}

async function openNotes(context: TestContext) {
  const database = openDatabase(context, await newStore(context))
  await query(database, 'CREATE TABLE @.notes (note int)')
  return database
}

describe('a transaction on Postgres', { skip: await whyNoPostgres() }, () => {
  test('that could not be begun has nothing carried out', async (context) => {
    const database = await openNotes(context)
    refuseNext(context, 'BEGIN')
    const noting = database.transaction(async (rows) => {
      await rows.rows(look)
      await rows.run(note)
    })
    await assert.rejects(noting, { name: 'PosthornError', retryable: true })
    assert.equal((await database.rows(look)).length, 0)
  })

  test('that could not be committed is over, and its connection serves others', async (context) => {
    const database = await openNotes(context)
    refuseNext(context, 'COMMIT')
    const noting = database.transaction((rows) => rows.run(note))
    await assert.rejects(noting, { code: 'POSTHORN_STORAGE_FAILED', retryable: true })
    assert.equal((await database.rows(look)).length, 0)
    await database.transaction((rows) => rows.run(note))
    assert.equal((await database.rows(look)).length, 1)
  })

  test('is tried again for what failed first, though statements that were sent behind it fail, too', async (context) => {
    const database = await openNotes(context)
    let tries = 0
    await database.transaction(async (rows) => {
      const first = tries++ === 0 ? rows.run(conflict) : undefined
      rows.send(note)
      await first
    })
    assert.equal(tries, 2)
    assert.equal((await database.rows(look)).length, 1)
  })
})
