import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { sendWelcomeEmail } from '../services/email.ts'

/**
 * A mail server may be down for long, and an email is still welcome hours later: many attempts. Their delays are
 * short so that this example's outage ends while you watch; in production, let them grow to minutes.
 */
export function subscribeWelcomeEmail(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'welcome-email',
    async (event, { signal }) => sendWelcomeEmail(event.data, { idempotencyKey: event.id, signal }),
    {
      concurrency: 200,
      timeout: '30s',
      retry: { attempts: 1_000, backoff: { type: 'exponential', delay: '4s', max: '8s', jitter: 'full' } },
    },
  )
}
