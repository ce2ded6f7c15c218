import { connect, topic } from 'posthorn'

const orderPlaced = topic<{ readonly orderId: string }>('order.placed')
await using post = await connect('sqlite:data/orders.db')
const { promise: failed, resolve } = Promise.withResolvers<void>()

const failing = post.subscribe(
  orderPlaced,
  'invoices',
  () => {
    resolve()
    throw new Error('The ledger is closed.')
  },
  { retry: { attempts: 1 } },
)
await failing.ready
await post.publish(orderPlaced, { orderId: 'o-1' })
await failed
await failing.close()

// #region watch
for (const state of await post.admin.subscriptions()) {
  const { topic, subscription, backlog, lagMs, retrying, parked, blockedKeys, breakers, deadLetters } = state
  console.log(`${topic} ${subscription}`, { backlog, lagMs, retrying, parked, blockedKeys, breakers, deadLetters })
}
// #endregion

// #region consumers
for (const { host, pid, leaseUntilMs, subscriptions } of await post.admin.consumers()) {
  console.log(`${pid} on ${host} until ${new Date(leaseUntilMs).toISOString()}`, subscriptions)
}
// #endregion

// #region redrive
const count = await post.admin.redrive(orderPlaced, 'invoices', { perSecond: 50 })
// #endregion
console.log(`${count} redriven`)

// #region integrity
const problems = await post.admin.checkIntegrity()
if (problems.length > 0) console.error(problems.join('\n'))
// #endregion
console.log(`${problems.length} problems`)
