import { drizzle } from 'drizzle-orm/node-postgres'
import { pgTable, text } from 'drizzle-orm/pg-core'
import pg from 'pg'
import { type Recipe, userSignedUp } from './recipe.ts'

export const users = pgTable('users', { email: text('email').primaryKey() })

export const withDrizzle: Recipe = async (post, url) => {
  const pool = new pg.Pool({ connectionString: url })
  const database = drizzle({ client: pool })

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    await database.transaction(async (tx) => {
      await tx.insert(users).values({ email })
      await post.publish(userSignedUp, { email }, { tx })
    })
  }
  // #endregion

  return { signUp, close: () => pool.end() }
}
