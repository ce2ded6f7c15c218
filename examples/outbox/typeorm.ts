import { DataSource, EntitySchema } from 'typeorm'
import { type Recipe, userSignedUp } from './recipe.ts'

const User = new EntitySchema<{ email: string }>({
  name: 'users',
  columns: { email: { type: 'text', primary: true } },
})

export const withTypeOrm: Recipe = async (post, url) => {
  const source = await new DataSource({ type: 'postgres', url, entities: [User] }).initialize()

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    await source.transaction(async (manager) => {
      await manager.insert(User, { email })
      await post.publish(userSignedUp, { email }, { tx: manager })
    })
  }
  // #endregion

  return { signUp, close: () => source.destroy() }
}
