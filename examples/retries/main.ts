import { connect, Discard, queue, RetryAfter } from 'posthorn'

const charges = queue<{ readonly invoice: string }>('charges')
await using post = await connect('sqlite:data/charges.db')

/** Stands in for a payment service. */
async function charge(invoice: string, attempt: number): Promise<{ status: number; retryAfterSeconds?: number }> {
  if (invoice === 'void') return { status: 404 }
  if (invoice === 'busy' && attempt === 1) return { status: 429, retryAfterSeconds: 0.1 }
  if (invoice === 'flaky' && attempt < 3) return { status: 500 }
  return { status: 200 }
}

// #region handler
const subscription = post.subscribe(
  charges,
  async (event, { attempt }) => {
    const { status, retryAfterSeconds } = await charge(event.data.invoice, attempt)
    console.log(`${event.data.invoice}, attempt ${attempt}: ${status}`)
    if (status === 404) throw new Discard('There is no such invoice.')
    if (status === 429) throw new RetryAfter(`${retryAfterSeconds ?? 1}s`)
    if (status !== 200) throw new Error(`The payment service answered ${status}.`)
  },
  {
    timeout: '10s',
    retry: { attempts: 5, backoff: { type: 'exponential', delay: '50ms', max: '1m', jitter: 'full' } },
  },
)
// #endregion

await subscription.ready
for (const invoice of ['void', 'busy', 'flaky']) await settled(invoice)

async function settled(invoice: string): Promise<void> {
  await post.publish(charges, { invoice })
  for (;;) {
    const [state] = await post.admin.subscriptions(charges)
    const open = state === undefined ? 1 : state.backlog + state.leased + state.retrying + state.returned
    if (open === 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

// #region dead-letters
for await (const dead of post.admin.eachDeadLetter(charges, 'charges')) {
  console.log(`${dead.reason}: ${dead.failures.at(-1)?.message}`)
}
// #endregion
