// #region code
import { type Post, topic } from 'posthorn'

export const userSignedUp = topic<{ readonly email: string }>('user.signed_up')

export type SendEmail = (address: string) => Promise<void>

export function subscribeWelcomeEmail(post: Post, sendEmail: SendEmail) {
  return post.subscribe(userSignedUp, 'welcome-email', async (event) => sendEmail(event.data.email), {
    retry: { attempts: 3, backoff: { type: 'fixed', delay: '1m', jitter: 'none' } },
  })
}
// #endregion
