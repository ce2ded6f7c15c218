import { mkdirSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { connect, topic } from 'posthorn'

interface Order {
  readonly orderId: string
  readonly total: number
}

const orderPaid = topic<Order>('order.paid')
const invoiceWritten = topic<{ readonly orderId: string }>('invoice.written')
mkdirSync('data', { recursive: true })

const post = await connect('sqlite:data/shop.db')
const database = new DatabaseSync('data/shop.db', { timeout: 5_000 })
database.exec('CREATE TABLE invoices (order_id TEXT, total REAL)')

// #region subscribe
await post.ensureTopics(invoiceWritten)

post.subscribe(
  orderPaid,
  'invoices',
  async (event, { tx, attempt }) => {
    const { orderId, total } = event.data
    tx.prepare('INSERT INTO invoices (order_id, total) VALUES (?, ?)').run(orderId, total)
    await post.publish(invoiceWritten, { orderId }, { tx })
    if (attempt === 1) throw new Error('Too early.')
  },
  { transactional: true, retry: { attempts: 3, backoff: { type: 'fixed', delay: '50ms', jitter: 'none' } } },
)
// #endregion

const written = Promise.withResolvers<string>()
post.subscribe(invoiceWritten, 'archive', (event) => written.resolve(event.data.orderId))

await post.publish(orderPaid, { orderId: 'o-1', total: 40 })
console.log(`Invoice for ${await written.promise}`)
const [counted] = database.prepare('SELECT count(*) AS invoices FROM invoices').all()
const { messages } = (await post.admin.topics()).find(({ topic: name }) => name === invoiceWritten.name)!
console.log(`After two attempts: invoices ${counted?.invoices}, messages ${messages}`)
database.close()
await post.close()
