import { connect, topic } from 'posthorn'

interface Order {
  readonly orderId: string
  readonly total: number
}

const orderPlaced = topic<Order>('order.placed', { key: (order) => order.orderId })
await using post = await connect('sqlite:data/orders.db')

// #region subscribe
const receipts = post.subscribe(orderPlaced, 'receipts', async (event) => {
  await record('receipts', `receipt over ${event.data.total} for order ${event.subject}`)
})

const statistics = post.subscribe(orderPlaced, 'statistics', async (event, { partition, offset }) => {
  await record('statistics', `order at ${partition}/${offset}, published by ${event.source}`)
})

await Promise.all([receipts.ready, statistics.ready])
// #endregion

const lines: string[] = []
const { promise: complete, resolve } = Promise.withResolvers<void>()

async function record(subscription: string, line: string): Promise<void> {
  lines.push(`${subscription}: ${line}`)
  if (lines.length === 4) resolve()
}

await post.publish(orderPlaced, { orderId: 'o-1', total: 40 })
await post.publish(orderPlaced, { orderId: 'o-2', total: 7 })
await complete
console.log(lines.sort().join('\n'))
