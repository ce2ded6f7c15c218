import type { Pool } from 'pg'
import type { Post } from 'posthorn'
import { userSignedUp } from './recipe.ts'

/** How not to do it: whatever goes wrong between the two writes leaves one without the other. */
export function signUpTwice(post: Post, pool: Pool) {
  // #region dual-write
  async function signUp(email: string): Promise<void> {
    await pool.query('INSERT INTO users (email) VALUES ($1)', [email])
    // The process dies here, or the next line fails: a user to whom nobody ever writes.
    await post.publish(userSignedUp, { email })
  }
  // #endregion

  return signUp
}
