import Stripe from 'stripe'
import type { CallOptions, NewUser } from '../events.ts'
import { readAddress } from './addresses.ts'

const stripe = new Stripe(readAddress('STRIPE_API_KEY'), {
  ...standIn(process.env.STRIPE_BASE_URL),
  maxNetworkRetries: 0, // Posthorn retries, and remembers across restarts
  timeout: 10_000,
  telemetry: false,
})

function standIn(baseUrl: string | undefined): Stripe.StripeConfig {
  if (baseUrl === undefined) return {}
  const { hostname, port, protocol } = new URL(baseUrl)
  return { host: hostname, port, protocol: protocol === 'http:' ? 'http' : 'https' }
}

/** Creates the Stripe customer and returns its id. A repetition with the same key returns the one that exists. */
export async function createCustomer(user: NewUser, { idempotencyKey, signal }: CallOptions): Promise<string> {
  signal.throwIfAborted()
  const parameters = { email: user.email, name: user.name, metadata: { user_id: user.userId } }
  const customer = await stripe.customers.create(parameters, { idempotencyKey })
  return customer.id
}
