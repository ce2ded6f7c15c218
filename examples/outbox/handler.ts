import { type Post, type PostgresTransaction, type TransactionalContext, topic } from 'posthorn'

export const orderPaid = topic<{ readonly orderId: string; readonly total: number }>('order.paid')
export const invoiceWritten = topic<{ readonly orderId: string }>('invoice.written')

/** Writes invoices into a table, once for each order. */
export async function writeInvoices(post: Post): Promise<void> {
  await post.ensureTopics(invoiceWritten)

  // #region subscribe
  post.subscribe(
    orderPaid,
    'invoices',
    async (event, { tx, attempt }: TransactionalContext<PostgresTransaction>) => {
      const { orderId, total } = event.data
      await tx.query('INSERT INTO invoices (order_id, total) VALUES ($1, $2)', [orderId, total])
      await post.publish(invoiceWritten, { orderId }, { tx })
      if (attempt === 1) throw new Error('Too early.')
    },
    { transactional: true, concurrency: 4, retry: { attempts: 3, backoff: { delay: '50ms' } } },
  )
  // #endregion
}
