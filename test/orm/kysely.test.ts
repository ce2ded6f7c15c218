import { CamelCasePlugin, Kysely, type KyselyPlugin, ParseJSONResultsPlugin, PostgresDialect } from 'kysely'
import pg from 'pg'
import { type Library, publishingWithin } from './suite.ts'

interface Tables {
  readonly users: { readonly name: string }
}

async function open(url: string, plugins: KyselyPlugin[]): Promise<Library> {
  const database = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }),
    plugins,
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
}

await publishingWithin('Kysely', (url) => open(url, []))

await publishingWithin('Kysely with plugins that change results', (url) =>
  open(url, [new CamelCasePlugin(), new ParseJSONResultsPlugin()]),
)
