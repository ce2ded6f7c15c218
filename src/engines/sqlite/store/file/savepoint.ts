import type { Statements } from './connection.ts'

/** Runs `work` within the open transaction, and undoes what it has written when it throws. */
export function atomically<T>(statements: Statements, work: () => T): T {
  statements.run('SAVEPOINT posthorn_append')
  try {
    const result = work()
    statements.run('RELEASE posthorn_append')
    return result
  } catch (error) {
    rollBack(statements)
    throw error
  }
}

function rollBack(statements: Statements): void {
  try {
    statements.run('ROLLBACK TO posthorn_append')
    statements.run('RELEASE posthorn_append')
  } catch {
    // A full disk makes SQLite roll back the whole transaction by itself.
  }
}
