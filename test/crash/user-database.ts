/**
 * The user's own tables beside the store: `orders`, written in transactions in which messages are published, and
 * `effects`, written by transactional handlers, once a message: nothing in the table keeps them from doing it twice.
 */
import { DatabaseSync } from 'node:sqlite'
import pg from 'pg'

export type Table = 'orders' | 'effects'

export interface UserDatabase {
  createTables(): Promise<void>
  /** Runs `work` in a transaction; commits it unless `work` answers no. */
  transaction(work: (tx: unknown) => Promise<boolean>): Promise<void>
  labels(table: Table): Promise<string[]>
  close(): Promise<void>
}

const CREATE_TABLES = `
CREATE TABLE IF NOT EXISTS orders (label TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS effects (label TEXT NOT NULL)`
const BUSY_MS_MAX = 10_000
const SQLITE = 'sqlite:'

/** The database that the store of this URL is in. */
export function openUserDatabase(url: string): UserDatabase {
  return url.startsWith(SQLITE) ? new SqliteUser(url.slice(SQLITE.length)) : new PostgresUser(url)
}

/** Writes within a transaction of the user's or of a handler. */
export async function insertLabel(tx: unknown, table: Table, label: string): Promise<void> {
  if (tx instanceof DatabaseSync) tx.prepare(`INSERT INTO ${table} (label) VALUES (?)`).run(label)
  else if (isClient(tx)) await tx.query(`INSERT INTO ${table} (label) VALUES ($1)`, [label])
  else throw new TypeError('This is a transaction of no database that is known here.')
}

function isClient(tx: unknown): tx is Pick<pg.Client, 'query'> {
  return typeof (tx as Partial<pg.Client> | undefined)?.query === 'function'
}

class SqliteUser implements UserDatabase {
  readonly #database: DatabaseSync

  constructor(file: string) {
    this.#database = new DatabaseSync(file, { timeout: BUSY_MS_MAX })
  }

  async createTables(): Promise<void> {
    this.#database.exec(CREATE_TABLES)
  }

  async transaction(work: (tx: unknown) => Promise<boolean>): Promise<void> {
    this.#database.exec('BEGIN IMMEDIATE')
    this.#database.exec((await work(this.#database)) ? 'COMMIT' : 'ROLLBACK')
  }

  async labels(table: Table): Promise<string[]> {
    const rows = this.#database.prepare(`SELECT label FROM ${table}`).all()
    return rows.map(({ label }) => String(label))
  }

  async close(): Promise<void> {
    this.#database.close()
  }
}

/** Each call has a connection of its own, as the server may be killed between any two. */
class PostgresUser implements UserDatabase {
  readonly #url: string

  constructor(url: string) {
    this.#url = url
  }

  createTables(): Promise<void> {
    // Of several that start together, all but one would find half of a table.
    return this.#use((client) => client.query(`SELECT pg_advisory_xact_lock(1); ${CREATE_TABLES}`))
  }

  async transaction(work: (tx: unknown) => Promise<boolean>): Promise<void> {
    await this.#use(async (client) => {
      await client.query('BEGIN')
      await client.query((await work(client)) ? 'COMMIT' : 'ROLLBACK')
    })
  }

  async labels(table: Table): Promise<string[]> {
    let labels: string[] = []
    await this.#use(async (client) => {
      const { rows } = await client.query<{ label: string }>(`SELECT label FROM ${table}`)
      labels = rows.map(({ label }) => label)
    })
    return labels
  }

  async close(): Promise<void> {}

  async #use(work: (client: pg.Client) => Promise<unknown>): Promise<void> {
    const client = new pg.Client({ connectionString: this.#url })
    client.on('error', () => {})
    try {
      await client.connect()
      await work(client)
    } finally {
      await client.end().catch(() => {})
    }
  }
}
