import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { publishingWithin } from './suite.ts'

await publishingWithin('Drizzle', async (url) => {
  const pool = new pg.Pool({ connectionString: url })
  const database = drizzle({ client: pool })
  return {
    connection: database,
    transaction: (work) =>
      database.transaction(async (tx) => {
        const addUser = async (name: string) => void (await tx.execute(sql`INSERT INTO users VALUES (${name})`))
        await work({ tx, addUser })
      }),
    close: () => pool.end(),
  }
})
