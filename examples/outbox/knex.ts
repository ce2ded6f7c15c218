import knex from 'knex'
import { type Recipe, userSignedUp } from './recipe.ts'

export const withKnex: Recipe = async (post, url) => {
  const database = knex({ client: 'pg', connection: url })

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    await database.transaction(async (tx) => {
      await tx('users').insert({ email })
      await post.publish(userSignedUp, { email }, { tx })
    })
  }
  // #endregion

  return { signUp, close: () => database.destroy() }
}
