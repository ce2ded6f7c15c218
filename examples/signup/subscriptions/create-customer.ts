import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { createCustomer } from '../services/customers.ts'

/**
 * Money is near: the event's id is Stripe's idempotency key, so that a repetition after a crash creates no second
 * customer. Stripe keeps these keys for a day, and the attempts end well before that.
 */
export function subscribeCreateCustomer(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'create-customer',
    async (event, { signal }) => createCustomer(event.data, { idempotencyKey: event.id, signal }),
    {
      concurrency: 100,
      timeout: '15s',
      retry: { attempts: 50, backoff: { type: 'exponential', delay: '500ms', max: '10m', jitter: 'full' } },
    },
  )
}
