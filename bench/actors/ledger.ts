import { DatabaseSync } from 'node:sqlite'
import { connect } from 'posthorn'
import { userSignedUp } from '../signup.ts'

/** A process whose handlers write to a table of their own, in the transaction that acknowledges the message. */
export class Ledger {
  /** Works off a backlog. Resolves with messages per second. */
  async drain({ url, file, messages }: { url: string; file: string; messages: number }): Promise<number> {
    createTable(file)
    await using post = await connect(url)
    const done = Promise.withResolvers<void>()
    let left = messages
    const startedAtMs = performance.now()
    const subscription = post.subscribe(
      userSignedUp,
      'ledger',
      async (event, { tx }) => {
        tx.prepare('INSERT INTO customers (id, email) VALUES (?, ?)').run(event.data.userId, event.data.email)
        if (--left === 0) done.resolve()
      },
      { transactional: true, from: 'earliest' },
    )
    await done.promise
    await subscription.close()
    const seconds = (performance.now() - startedAtMs) / 1_000
    refuseMissing(file, messages)
    return messages / seconds
  }
}

function createTable(file: string): void {
  using database = new DatabaseSync(file)
  database.exec('CREATE TABLE customers (id TEXT PRIMARY KEY, email TEXT NOT NULL)')
}

function refuseMissing(file: string, wanted: number): void {
  using database = new DatabaseSync(file)
  const { found } = database.prepare('SELECT count(*) AS found FROM customers').get() as { found: number }
  if (found !== wanted) throw new Error(`${found} of ${wanted} messages took effect.`)
}
