import pg from 'pg'
import { type Recipe, userSignedUp } from './recipe.ts'

export const withPg: Recipe = async (post, url) => {
  const pool = new pg.Pool({ connectionString: url })

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      await client.query('INSERT INTO users (email) VALUES ($1)', [email])
      await post.publish(userSignedUp, { email }, { tx: client })
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {}) // the connection may be gone, and took it back then
      throw error
    } finally {
      client.release()
    }
  }
  // #endregion

  return { signUp, close: () => pool.end() }
}
