import { DatabaseSync } from 'node:sqlite'
import type { NewUser } from './events.ts'

/**
 * The application's own table, on its own connection, in the same file as Posthorn's tables. A connection has one
 * transaction at a time, and the work within one may await, so transactions take turns: `tail` is the last in line.
 * When the work throws, the transaction is rolled back, the caller is told, and the next one starts as usual.
 */
export class Users {
  readonly #database: DatabaseSync
  readonly #insert
  #tail: Promise<unknown> = Promise.resolve()

  constructor(file: string) {
    this.#database = new DatabaseSync(file, { timeout: 5_000 })
    this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    // Posthorn's thread copies the write-ahead log back. SQLite would by default do that every 1,000 pages within
    // somebody's commit, and requests would wait for it; so here it is only the net beneath.
    this.#database.exec('PRAGMA wal_autocheckpoint = 20000')
    this.#database.exec(
      'CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL)',
    )
    this.#insert = this.#database.prepare('INSERT INTO users (id, email, name) VALUES (?, ?, ?)')
  }

  /** Inserts the user and does `also`, which is handed the connection, in one transaction. */
  insert(user: NewUser, also?: (database: DatabaseSync) => Promise<unknown>): Promise<void> {
    const turn = this.#tail.then(() => this.#transaction(user, also))
    this.#tail = turn.catch(() => {})
    return turn
  }

  async #transaction(user: NewUser, also?: (database: DatabaseSync) => Promise<unknown>): Promise<void> {
    this.#database.exec('BEGIN IMMEDIATE')
    try {
      this.#insert.run(user.userId, user.email, user.name)
      await also?.(this.#database)
      this.#database.exec('COMMIT')
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    }
  }

  async close(): Promise<void> {
    await this.#tail
    this.#database.close()
  }
}
