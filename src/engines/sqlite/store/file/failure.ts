import { PosthornError } from '../../../../errors.ts'

/** SQLite's primary result codes that users can meet (https://www.sqlite.org/rescode.html). */
const BUSY = 5
const READONLY = 8
const CORRUPT = 11
const FULL = 13
const CANTOPEN = 14
const NOTADB = 26

/** For how long the writer's connection waits for another one's lock. */
export const BUSY_LIMIT_MS = 10_000

interface SqliteError extends Error {
  readonly errcode: number
}

function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && typeof (error as Partial<SqliteError>).errcode === 'number'
}

// The low byte of an extended code is the primary one.
function primaryCode(error: unknown): number | undefined {
  return isSqliteError(error) ? error.errcode & 0xff : undefined
}

export function isBusy(error: unknown): boolean {
  return primaryCode(error) === BUSY
}

/** Whether SQLite found the file's structure damaged where it read. */
export function isCorruption(error: unknown): boolean {
  return primaryCode(error) === CORRUPT
}

/**
 * Turns what SQLite threw into the coded error that tells a user what to do. Coded errors pass through. `busyLimitMs`
 * is how long the connection waits for a lock before it gives up.
 */
export function describeFailure(error: unknown, file: string, busyLimitMs: number = BUSY_LIMIT_MS): PosthornError {
  if (error instanceof PosthornError) return error
  const problem = error instanceof Error ? error.message : String(error)
  const options = { cause: error }
  switch (primaryCode(error)) {
    case READONLY:
      return new PosthornError('POSTHORN_STORAGE_READ_ONLY', { file }, options)
    case CORRUPT:
      return new PosthornError('POSTHORN_STORAGE_CORRUPT', { store: file, problem }, options)
    case FULL:
      return new PosthornError('POSTHORN_STORAGE_FULL', { store: file }, options)
    case CANTOPEN:
      return new PosthornError('POSTHORN_STORAGE_UNAVAILABLE', { store: file, problem }, options)
    case NOTADB:
      return new PosthornError('POSTHORN_NOT_A_DATABASE', { file }, options)
    case BUSY:
      return new PosthornError('POSTHORN_STORAGE_BUSY', { store: file, waitedMs: busyLimitMs }, options)
    default:
      return new PosthornError('POSTHORN_STORAGE_FAILED', { store: file, problem }, options)
  }
}
