import { DatabaseSync } from 'node:sqlite'

/**
 * The history of every account, in a database of the billing department's own. The primary key is its inbox: a change
 * that is delivered again is not written again.
 */
export class Accounts {
  readonly #database: DatabaseSync
  readonly #insert

  constructor(file: string) {
    this.#database = new DatabaseSync(`${file}.accounts`, { timeout: 5_000 })
    this.#database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    this.#database.exec(
      'CREATE TABLE IF NOT EXISTS changes (position INTEGER PRIMARY KEY, message TEXT UNIQUE, user_id TEXT, change TEXT)',
    )
    this.#insert = this.#database.prepare('INSERT OR IGNORE INTO changes (message, user_id, change) VALUES (?, ?, ?)')
  }

  /** `message` is equal for all deliveries of one change. */
  record(message: string, userId: string, change: string): void {
    this.#insert.run(message, userId, change)
  }

  close(): void {
    this.#database.close()
  }
}

/** The changes of every account, in the order in which they took effect. */
export function readAccounts(file: string): Map<string, string[]> {
  using database = new DatabaseSync(`${file}.accounts`, { readOnly: true })
  const rows = database.prepare('SELECT user_id, change FROM changes ORDER BY position').all()
  const accounts = new Map<string, string[]>()
  for (const { user_id, change } of rows as { user_id: string; change: string }[]) {
    const changes = accounts.get(user_id) ?? []
    accounts.set(user_id, [...changes, change])
  }
  return accounts
}
