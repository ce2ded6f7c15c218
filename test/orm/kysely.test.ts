import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { publishingWithin } from './suite.ts'

interface Tables {
  readonly users: { readonly name: string }
}

await publishingWithin('Kysely', async (url) => {
  const database = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }),
  })
  return {
    connection: database,
    transaction: (work) =>
      database.transaction().execute(async (tx) => {
        const addUser = async (name: string) => void (await tx.insertInto('users').values({ name }).execute())
        await work({ tx, addUser })
      }),
    close: () => database.destroy(),
  }
})
