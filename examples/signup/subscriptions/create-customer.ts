import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { createCustomer } from '../services/customers.ts'

/**
 * Money is near. The step keeps the customer's id once Stripe has answered, so that whatever fails after it, however
 * much later, creates no second customer. Between Stripe's answer and its keeping a crash may fall: then the step runs
 * again under the same idempotency key, which Stripe remembers for a day.
 */
export function subscribeCreateCustomer(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'create-customer',
    async (event, context) => {
      await context.step('create-customer', (step) => createCustomer(event.data, step))
    },
    {
      concurrency: 100,
      timeout: '15s',
      breaker: true,
    },
  )
}
