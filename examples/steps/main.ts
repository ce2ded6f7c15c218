import { connect, topic } from 'posthorn'

const userSignedUp = topic<{ readonly userId: string; readonly email: string }>('user.signed_up')
await using post = await connect('sqlite:data/signup.db')
const { promise: done, resolve } = Promise.withResolvers<void>()

/** Stands in for Stripe: one customer for each idempotency key. */
const customers = new Map<string, { id: string }>()
const stripe = {
  async createCustomer({ email }: { email: string }, { idempotencyKey }: { idempotencyKey: string }) {
    console.log(`asked to create a customer for ${email}`)
    const customer = customers.get(idempotencyKey) ?? { id: `cus_${customers.size + 1}` }
    customers.set(idempotencyKey, customer)
    return customer
  },
}

/** Stands in for a mail server that is down at first. */
let mails = 0
async function sendWelcome(customerId: string): Promise<void> {
  mails++
  if (mails === 1) throw new Error('421 Service not available')
  console.log(`welcomed ${customerId}`)
}

// #region subscribe
const subscription = post.subscribe(
  userSignedUp,
  'onboarding',
  async (event, { step, attempt }) => {
    console.log(`attempt ${attempt}`)
    const { email } = event.data
    const customer = await step('create-customer', ({ idempotencyKey }) =>
      stripe.createCustomer({ email }, { idempotencyKey }),
    )
    await step('send-welcome', () => sendWelcome(customer.id))
    resolve()
  },
  { retry: { attempts: 5, backoff: { type: 'fixed', delay: '50ms', jitter: 'none' } } },
)
// #endregion

await subscription.ready
await post.publish(userSignedUp, { userId: 'u1', email: 'ada@example.com' })
await done
