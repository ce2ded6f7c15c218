import { hash } from 'node:crypto'
import type { TestContext } from 'node:test'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { newSchema } from '../../servers/shared-postgres.ts'

/** The URL of an empty schema of the test's own, as Posthorn takes it. */
export async function newStore(context: TestContext): Promise<string> {
  const { name, url, drop } = await newSchema()
  context.after(drop)
  const address = new URL(url)
  address.searchParams.delete('options')
  address.searchParams.set('schema', name)
  return address.href
}

export function openDatabase(context: TestContext, url: string): Database {
  const database = new Database(parsePostgresAddress(url))
  context.after(() => database.close())
  return database
}

/** What a query of the test's own finds. */
export function query<Row>(database: Database, text: string, ...values: readonly unknown[]): Promise<Row[]> {
  return database.rows<Row>({ name: `test_${hash('md5', text)}`, text }, ...values)
}
