// #region worker
import { connect } from 'posthorn'
import { emails } from './emails.ts'

const post = await connect('sqlite:data/first-queue.db', { closeOnSignals: true })

post.subscribe(
  emails,
  async (event, { attempt }) => {
    console.log(`Attempt ${attempt}: "${event.data.subject}" to ${event.data.to}`)
    if (event.data.to.startsWith('nobody@')) throw new Error('550 No such mailbox')
  },
  { concurrency: 1, retry: { attempts: 3, backoff: { type: 'fixed', delay: '200ms', jitter: 'none' } } },
)
// #endregion
