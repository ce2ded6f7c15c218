import { connect, topic } from 'posthorn'

await using post = await connect('sqlite:data/accounts.db')

// #region definition
interface AccountChange {
  readonly userId: string
  readonly change: 'created' | 'verified' | 'charged'
}

const accountChanged = topic<AccountChange>('account.changed', { key: ({ userId }) => userId })
// #endregion

const finished: string[] = []
const { promise: done, resolve } = Promise.withResolvers<void>()

/** Stands in for a billing service that does not know user u1 to be verified the first time. */
async function bill({ userId, change }: AccountChange, attempt: number): Promise<void> {
  if (userId === 'u1' && change === 'verified' && attempt === 1) throw new Error('The billing service failed.')
  finished.push(`${userId} ${change} (attempt ${attempt})`)
  if (finished.length === 6) resolve()
}

// #region publish
for (const userId of ['u1', 'u2']) {
  for (const change of ['created', 'verified', 'charged'] as const) {
    await post.publish(accountChanged, { userId, change })
  }
}
// #endregion

// #region subscribe
post.subscribe(accountChanged, 'billing', (event, { attempt }) => bill(event.data, attempt), {
  ordered: true,
  concurrency: 20,
  retry: { attempts: 5, backoff: { type: 'fixed', delay: '200ms', jitter: 'none' } },
})
// #endregion

await done
for (const userId of ['u1', 'u2']) console.log(finished.filter((line) => line.startsWith(userId)).join(', '))
console.log(`Finished last: ${finished.at(-1)}`)
