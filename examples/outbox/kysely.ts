import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { type Recipe, userSignedUp } from './recipe.ts'

interface Tables {
  readonly users: { readonly email: string }
}

export const withKysely: Recipe = async (post, url) => {
  const pool = new pg.Pool({ connectionString: url })
  const database = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    await database.transaction().execute(async (tx) => {
      await tx.insertInto('users').values({ email }).execute()
      await post.publish(userSignedUp, { email }, { tx })
    })
  }
  // #endregion

  return { signUp, close: () => database.destroy() }
}
