import { connect, topic } from 'posthorn'

interface Sale {
  readonly amount: number
}

const saleMade = topic<Sale>('sale.made', { retention: { maxAge: '30d' } })
await using post = await connect('sqlite:data/sales.db')
const watched = { total: 0, count: 0, reached: Promise.withResolvers<void>() }

function add(amount: number): void {
  watched.total += amount
  watched.count++
  if (watched.count === 3) watched.reached.resolve()
}

for (const amount of [10, 20, 30]) await post.publish(saleMade, { amount })

// #region subscribe
const totals = post.subscribe(saleMade, 'totals', (event) => add(event.data.amount), { from: 'earliest' })
// #endregion

await totals.ready
await watched.reached.promise
await settled()
console.log(`First time: ${watched.total}`)
Object.assign(watched, { total: 0, count: 0, reached: Promise.withResolvers<void>() })

// #region replay
await post.admin.replay(saleMade, 'totals', 'earliest')
// #endregion

await watched.reached.promise
console.log(`Again: ${watched.total}`)

async function settled(): Promise<void> {
  for (;;) {
    const [state] = await post.admin.subscriptions(saleMade)
    if (state?.backlog === 0 && state.leased === 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
