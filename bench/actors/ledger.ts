import { DatabaseSync } from 'node:sqlite'
import { connect } from 'posthorn'
import { userSignedUp } from '../signup.ts'
import { openSession } from './postgres-session.ts'

type Customer = Readonly<Record<'userId' | 'email', string>>

/** A table of the user's, in the store. */
interface Book {
  create(): Promise<void>
  /** Within a handler's transaction. */
  write(transaction: unknown, customer: Customer): Promise<void> | void
  count(): Promise<number>
}

const CREATE = 'CREATE TABLE customers (id text PRIMARY KEY, email text NOT NULL)'
const COUNT = 'SELECT CAST(count(*) AS integer) AS found FROM customers'

/** A process whose handlers write to a table of their own, in the transaction that acknowledges the message. */
export class Ledger {
  /** Works off a backlog. Resolves with messages per second. */
  async drain({ url, messages }: { url: string; messages: number }): Promise<number> {
    const book = url.startsWith('sqlite:') ? sqliteBook(url) : postgresBook(url)
    await book.create()
    await using post = await connect(url)
    const done = Promise.withResolvers<void>()
    let left = messages
    const startedAtMs = performance.now()
    const subscription = post.subscribe(
      userSignedUp,
      'ledger',
      async (event, { tx }) => {
        await book.write(tx, event.data)
        if (--left === 0) done.resolve()
      },
      { transactional: true, from: 'earliest' },
    )
    await done.promise
    await subscription.close()
    const seconds = (performance.now() - startedAtMs) / 1_000
    const found = await book.count()
    if (found !== messages) throw new Error(`${found} of ${messages} messages took effect.`)
    return messages / seconds
  }
}

function sqliteBook(url: string): Book {
  const withFile = async <Value>(use: (database: DatabaseSync) => Value): Promise<Value> => {
    using database = new DatabaseSync(url.slice('sqlite:'.length))
    return use(database)
  }
  return {
    create: () => withFile((database) => database.exec(CREATE)),
    write(transaction, { userId, email }) {
      const insert = (transaction as DatabaseSync).prepare('INSERT INTO customers (id, email) VALUES (?, ?)')
      insert.run(userId, email)
    },
    count: () => withFile((database) => (database.prepare(COUNT).get() as { found: number }).found),
  }
}

function postgresBook(url: string): Book {
  type Client = Awaited<ReturnType<typeof openSession>>
  const withClient = async <Value>(use: (client: Client) => Promise<Value>): Promise<Value> => {
    const client = await openSession(url)
    try {
      return await use(client)
    } finally {
      await client.end()
    }
  }
  const text = `INSERT INTO ${new URL(url).searchParams.get('schema')}.customers (id, email) VALUES ($1, $2)`
  return {
    create: () => withClient(async (client) => void (await client.query(CREATE))),
    async write(transaction, { userId, email }) {
      await (transaction as Client).query({ name: 'insert_customer', text, values: [userId, email] })
    },
    count: () => withClient(async (client) => (await client.query<{ found: number }>(COUNT)).rows[0]!.found),
  }
}
