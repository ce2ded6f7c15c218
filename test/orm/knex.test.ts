import knex from 'knex'
import { publishingWithin } from './suite.ts'

await publishingWithin('Knex', async (url) => {
  const database = knex({ client: 'pg', connection: url })
  return {
    connection: database,
    transaction: (work) =>
      database.transaction(async (tx) => {
        const addUser = async (name: string) => void (await tx('users').insert({ name }))
        await work({ tx, addUser })
      }),
    close: () => database.destroy(),
  }
})
