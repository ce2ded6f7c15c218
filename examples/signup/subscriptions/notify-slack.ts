import type { Post, Subscription } from 'posthorn'
import { userSignedUp } from '../events.ts'
import { notifySlack } from '../services/slack.ts'

/** The least of the four: after ten attempts the line in the channel is old news, and a dead letter. */
export function subscribeNotifySlack(post: Post): Subscription {
  return post.subscribe(
    userSignedUp,
    'notify-slack',
    async (event, { signal }) => notifySlack(event.data, { idempotencyKey: event.id, signal }),
    {
      concurrency: 80,
      timeout: '5s',
      retry: { attempts: 10, backoff: { type: 'exponential', delay: '1s', max: '1m', jitter: 'full' } },
    },
  )
}
