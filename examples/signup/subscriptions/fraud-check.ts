import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { checkFraud } from '../services/fraud.ts'

/** Answers in half a second or is in trouble: a short timeout frees the place for the next event. */
export function subscribeFraudCheck(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'fraud-check',
    async (event, { signal }) => checkFraud(event.data, { idempotencyKey: event.id, signal }),
    {
      concurrency: 120,
      timeout: '5s',
      retry: { attempts: 20, backoff: { type: 'exponential', delay: '200ms', max: '10s', jitter: 'full' } },
    },
  )
}
