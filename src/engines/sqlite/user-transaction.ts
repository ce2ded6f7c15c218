import { realpathSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import type { AppendOutcome } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { connectionOf } from './lent-connection.ts'
import { StatementCache } from './store/file/connection.ts'
import { describeFailure } from './store/file/failure.ts'
import { atomically } from './store/file/savepoint.ts'
import { Log } from './store/log/log.ts'
import type { PackedGroup } from './wire-group.ts'

interface UserStore {
  readonly statements: StatementCache
  readonly log: Log
}

const COMMIT_LOOK_MS_MAX = 50

/**
 * Stores messages through the user's own connection, inside of their open transaction: the log is a few tables of the
 * same file, so nothing else is needed for both to commit together.
 *
 * Only connections of `node:sqlite` are taken. Any other library brings a second copy of SQLite into the process.
 * POSIX locks belong to the process, so the copies do not see each other's and overwrite each other's commits.
 */
export class UserTransactions {
  readonly #file: string
  readonly #clock: Clock
  readonly #onCommit: () => void
  readonly #stores = new WeakMap<DatabaseSync, UserStore>()
  readonly #watched = new WeakSet<DatabaseSync>()

  constructor(file: string, clock: Clock, onCommit: () => void) {
    this.#file = file
    this.#clock = clock
    this.#onCommit = onCommit
  }

  append(transaction: unknown, topic: string, pack: (partitions: number) => PackedGroup): AppendOutcome {
    const connection = asConnection(transaction)
    if (!isInTransaction(connection)) throw invalid('no transaction is open on this connection')
    try {
      const { statements, log } = this.#storeFor(connection)
      const packed = pack(log.topic(topic).partitions)
      // The user may catch the error and commit all the same: then nothing of the group may be left.
      const outcome = atomically(statements, () => log.append(packed.group, this.#clock.now()))
      this.#watchForCommit(connection)
      return packed.unpack(outcome)
    } catch (error) {
      // Statements of a connection that was closed and opened again are of no more use.
      this.#stores.delete(connection)
      if (error instanceof PosthornError && error.code === 'POSTHORN_BACKLOG_FULL') return { refused: error }
      throw describeFailure(error, this.#file, busyTimeoutMs(connection))
    }
  }

  #storeFor(connection: DatabaseSync): UserStore {
    let store = this.#stores.get(connection)
    if (!store) {
      const statements = new StatementCache((sql) => prepare(connection, sql))
      this.#refuseOtherFile(statements)
      store = { statements, log: new Log(statements) }
      this.#stores.set(connection, store)
    }
    return store
  }

  #refuseOtherFile(statements: StatementCache): void {
    const rows = statements.all<{ name: string; file: string }>('PRAGMA database_list')
    const main = rows.find((row) => row.name === 'main')?.file ?? ''
    if (main !== '' && realpathSync(main) === realpathSync(this.#file)) return
    throw invalid(`its connection is to ${main || 'a database in memory'}, and messages are kept in ${this.#file}`)
  }

  // Nobody tells us of the user's commit, so we look: mostly it has happened by the next turn of the event loop.
  #watchForCommit(connection: DatabaseSync): void {
    if (this.#watched.has(connection)) return
    this.#watched.add(connection)
    const look = async () => {
      for (let delayMs = 0; isInTransaction(connection); delayMs = Math.min(delayMs * 2 + 1, COMMIT_LOOK_MS_MAX)) {
        await pause(this.#clock, delayMs)
      }
      this.#watched.delete(connection)
      this.#onCommit()
    }
    setImmediate(() => void look())
  }
}

function asConnection(transaction: unknown): DatabaseSync {
  const connection = connectionOf(transaction)
  if (connection) return connection
  throw invalid(
    'it is not a DatabaseSync of node:sqlite, and another copy of SQLite in one process does not see the locks of the first, so that commits would be lost',
  )
}

// Answers with plain numbers and objects, whatever the connection does by default.
function prepare(connection: DatabaseSync, sql: string) {
  const statement = connection.prepare(sql)
  statement.setReadBigInts(false)
  statement.setReturnArrays(false)
  return statement
}

/** How long the user's connection waits for somebody else's lock. */
function busyTimeoutMs(connection: DatabaseSync): number | undefined {
  try {
    return (prepare(connection, 'PRAGMA busy_timeout').get() as { timeout: number }).timeout
  } catch {
    return undefined
  }
}

function isInTransaction(connection: DatabaseSync): boolean {
  try {
    return connection.isTransaction
  } catch {
    // Closed: whatever was open was rolled back.
    return false
  }
}

function invalid(problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}
