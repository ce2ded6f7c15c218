import { connect, isOutage, type SubscriptionState, topic } from 'posthorn'

const orderPlaced = topic<{ readonly orderId: string }>('order.placed')
await using post = await connect('sqlite:data/orders.db')
class MaintenanceError extends Error {}

const attempts: number[] = []
let down = true
let refused = 0

/** Stands in for a payment service that is down at first. */
async function charge(_orderId: string): Promise<void> {
  if (!down) return
  refused++
  throw Object.assign(new Error('connect ECONNREFUSED 192.0.2.1:443'), { code: 'ECONNREFUSED' })
}

for (let n = 1; n <= 50; n++) await post.publish(orderPlaced, { orderId: `o-${n}` })

// #region subscribe
post.subscribe(
  orderPlaced,
  'payments',
  async (event, { attempt }) => {
    await charge(event.data.orderId)
    attempts.push(attempt)
  },
  {
    retry: { attempts: 3 },
    breaker: {
      isOutage: (error) => isOutage(error) || error instanceof MaintenanceError,
      threshold: 5,
      probe: { delay: '100ms', max: '30s' },
    },
  },
)
// #endregion

await until((state) => state.breakers.length > 0)

// #region look
const [state] = await post.admin.subscriptions(orderPlaced)
for (const { state: phase, reason } of state?.breakers ?? []) console.log(`${phase}: ${reason}`)
// #endregion

await new Promise((resolve) => setTimeout(resolve, 500))
console.log(`fewer calls than messages: ${refused < 50}`)
down = false
await until((now) => now.backlog + now.leased + now.retrying + now.parked === 0 && now.breakers.length === 0)
const [after] = await post.admin.subscriptions(orderPlaced)
console.log(`${attempts.length} handled, in attempt ${[...new Set(attempts)]}; dead letters: ${after?.deadLetters}`)

async function until(test: (state: SubscriptionState) => boolean): Promise<void> {
  for (;;) {
    const [now] = await post.admin.subscriptions(orderPlaced)
    if (now !== undefined && test(now)) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
