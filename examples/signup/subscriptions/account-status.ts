import type { Post, Subscription } from 'posthorn'
import type { Accounts } from '../accounts.ts'
import { accountChanged } from '../events.ts'

/**
 * Created, then verified, then charged, for each account: in order, even when one of them fails and is tried again. And
 * once, because the database that it writes to knows which messages it has had.
 */
export function subscribeAccountStatus(post: Post, accounts: Accounts): Subscription {
  return post.subscribe(
    accountChanged,
    'account-status',
    async (event, { attempt, idempotencyKey }) => {
      const { userId, change } = event.data
      // One verification in sixteen fails at first, so that there is something to see: its charge has to wait.
      if (change === 'verified' && attempt === 1 && userId.startsWith('0')) throw new Error('Not verified yet.')
      accounts.record(idempotencyKey, userId, change)
    },
    {
      ordered: true,
      retry: { backoff: { type: 'exponential', delay: '500ms', max: '1m', jitter: 'full' } },
    },
  )
}
