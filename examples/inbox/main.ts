import { mkdirSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { connect, topic } from 'posthorn'

const paymentReceived = topic<{ readonly account: string; readonly cents: number }>('payment.received')
mkdirSync('data', { recursive: true })
await using post = await connect('sqlite:data/posthorn.db')

// #region tables
const database = new DatabaseSync('data/bank.db')
database.exec(`
  CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS inbox (key TEXT PRIMARY KEY, received_at TEXT NOT NULL)
`)
// #endregion

// #region once
/** Runs `effect` in the transaction that remembers `key`, unless the key is known. Says whether it ran. */
function once(key: string, effect: () => void): boolean {
  database.exec('BEGIN IMMEDIATE')
  try {
    const insert = database.prepare('INSERT INTO inbox (key, received_at) VALUES (?, ?) ON CONFLICT DO NOTHING')
    const isNew = insert.run(key, new Date().toISOString()).changes === 1
    if (isNew) effect()
    database.exec('COMMIT')
    return isNew
  } catch (error) {
    database.exec('ROLLBACK')
    throw error
  }
}
// #endregion

database.exec("INSERT INTO balances (account, cents) VALUES ('a1', 0)")
const { promise: settled, resolve } = Promise.withResolvers<void>()

// #region subscribe
post.subscribe(
  paymentReceived,
  'balances',
  async (event, { idempotencyKey, attempt }) => {
    const { account, cents } = event.data
    const isNew = once(idempotencyKey, () => {
      database.prepare('UPDATE balances SET cents = cents + ? WHERE account = ?').run(cents, account)
    })
    console.log(`attempt ${attempt}: ${isNew ? 'booked' : 'known already'}`)
    await afterwards(attempt)
  },
  { retry: { attempts: 3, backoff: { type: 'fixed', delay: '50ms', jitter: 'none' } } },
)
// #endregion

/** Stands in for what goes wrong between the commit and the acknowledgement. */
async function afterwards(attempt: number): Promise<void> {
  if (attempt === 1) throw new Error('The connection was reset.')
  resolve()
}

await post.publish(paymentReceived, { account: 'a1', cents: 500 })
await settled
console.log('balance:', database.prepare('SELECT cents FROM balances').get()?.cents)

// #region clean
const oldest = new Date(Date.now() - 30 * 86_400_000).toISOString()
database.prepare('DELETE FROM inbox WHERE received_at < ?').run(oldest)
// #endregion
database.close()
