import type { Post, Subscription } from 'posthorn'
import { recordChange } from '../accounts.ts'
import { accountChanged } from '../events.ts'

/**
 * Created, then verified, then charged, for each account: in order, even when one of them fails and is tried again, and
 * once, because the row and the acknowledgement are one transaction.
 */
export function subscribeAccountStatus(post: Post): Subscription {
  return post.subscribe(
    accountChanged,
    'account-status',
    async (event, { attempt, tx }) => {
      const { userId, change } = event.data
      // One verification in sixteen fails at first, so that there is something to see: its charge has to wait.
      if (change === 'verified' && attempt === 1 && userId.startsWith('0')) throw new Error('Not verified yet.')
      recordChange(tx, userId, change)
    },
    {
      ordered: true,
      transactional: true,
      retry: { backoff: { type: 'exponential', delay: '500ms', max: '1m', jitter: 'full' } },
    },
  )
}
