import { DatabaseSync } from 'node:sqlite'

/**
 * The history of every account, in the application's own table. Nothing in it keeps a change from being written twice,
 * or too early: that is left to the subscription that writes it.
 */
export function createAccounts(file: string): void {
  using database = new DatabaseSync(file, { timeout: 5_000 })
  database.exec(
    'CREATE TABLE IF NOT EXISTS account_changes (position INTEGER PRIMARY KEY, user_id TEXT NOT NULL, change TEXT NOT NULL)',
  )
}

export function recordChange(database: DatabaseSync, userId: string, change: string): void {
  database.prepare('INSERT INTO account_changes (user_id, change) VALUES (?, ?)').run(userId, change)
}

/** The changes of every account, in the order in which they took effect. */
export function readAccounts(file: string): Map<string, string[]> {
  using database = new DatabaseSync(file, { readOnly: true })
  const rows = database.prepare('SELECT user_id, change FROM account_changes ORDER BY position').all()
  const accounts = new Map<string, string[]>()
  for (const { user_id, change } of rows as { user_id: string; change: string }[]) {
    const changes = accounts.get(user_id) ?? []
    accounts.set(user_id, [...changes, change])
  }
  return accounts
}
