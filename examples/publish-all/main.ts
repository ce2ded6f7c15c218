import { connect, message, PosthornError, topic } from 'posthorn'
import { z } from 'zod'

const orderPaid = topic('order.paid', { schema: z.object({ orderId: z.string(), total: z.number().positive() }) })
const stockReserved = topic('stock.reserved', { schema: z.object({ sku: z.string(), pieces: z.int().positive() }) })
await using post = await connect('sqlite:data/shop.db')

// #region publish
const stored = await post.publishAll([
  message(orderPaid, { orderId: 'o-1', total: 40 }, { id: 'paid-o-1' }),
  message(stockReserved, { sku: 'lamp', pieces: 1 }, { id: 'reserved-o-1-lamp' }),
  message(stockReserved, { sku: 'bulb', pieces: 2 }, { id: 'reserved-o-1-bulb' }),
])
// #endregion
console.log(stored.map(({ offset, duplicate }) => `${offset} ${duplicate}`).join(', '))

try {
  await post.publishAll([
    message(orderPaid, { orderId: 'o-2', total: 10 }),
    message(stockReserved, { sku: 'lamp', pieces: 0 }),
  ])
} catch (error) {
  if (!(error instanceof PosthornError)) throw error
  console.log(error.code)
}

for (const { topic: name, messages } of await post.admin.topics()) console.log(`${name}: ${messages}`)
