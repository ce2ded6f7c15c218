import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { sendWelcomeEmail } from '../services/email.ts'

/**
 * A mail server may be down for long. The breaker then stops trying, so that no email uses up its attempts on it, and
 * looks now and then whether it is back; here within 4 seconds, so that you need not wait. The rate limit is what a
 * mail provider would ask for: whatever has piled up meanwhile, it gets no more than 300 a second.
 */
export function subscribeWelcomeEmail(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'welcome-email',
    async (event, { signal }) => sendWelcomeEmail(event.data, { idempotencyKey: event.id, signal }),
    {
      concurrency: 200,
      timeout: '30s',
      breaker: { probe: { delay: '500ms', max: '4s' } },
      rateLimit: { limit: 300, per: '1s', burst: 10 },
    },
  )
}
