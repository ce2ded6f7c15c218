import { realpathSync } from 'node:fs'
import type { AppendOutcome } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { StatementCache } from './store/connection.ts'
import { describeFailure } from './store/failure.ts'
import { Log } from './store/log.ts'
import type { PackedGroup } from './wire-group.ts'

type PreparedStatement = ReturnType<ConstructorParameters<typeof StatementCache>[0]>

/** How either of them is told to answer with plain numbers and objects, whatever the connection does by default. */
interface AnswerSettings {
  setReadBigInts?(enabled: boolean): void
  setReturnArrays?(enabled: boolean): void
  safeIntegers?(enabled: boolean): void
}

interface UserStore {
  readonly statements: StatementCache
  readonly log: Log
}

/** What `node:sqlite` and `better-sqlite3` connections have in common. */
interface UserConnection {
  prepare(sql: string): PreparedStatement
  /** node:sqlite */
  readonly isTransaction?: boolean
  /** better-sqlite3 */
  readonly inTransaction?: boolean
}

const COMMIT_LOOK_MS_MAX = 50

/**
 * Stores messages through the user's own connection, inside of their open transaction: the log is a few tables of the
 * same file, so nothing else is needed for both to commit together.
 */
export class UserTransactions {
  readonly #file: string
  readonly #clock: Clock
  readonly #onCommit: () => void
  readonly #stores = new WeakMap<object, UserStore>()
  readonly #watched = new WeakSet<object>()

  constructor(file: string, clock: Clock, onCommit: () => void) {
    this.#file = file
    this.#clock = clock
    this.#onCommit = onCommit
  }

  append(transaction: unknown, topic: string, pack: (partitions: number) => PackedGroup): AppendOutcome {
    const connection = asConnection(transaction)
    if (!isOpen(connection)) throw invalid('no transaction is open on this connection')
    try {
      const { statements, log } = this.#storeFor(connection)
      const packed = pack(log.topic(topic).partitions)
      const outcome = atomically(statements, () => log.append(packed.group, this.#clock.now()))
      this.#watchForCommit(connection)
      return packed.unpack(outcome)
    } catch (error) {
      // Statements of a connection that was closed and opened again are of no more use.
      this.#stores.delete(connection)
      if (error instanceof PosthornError && error.code === 'POSTHORN_BACKLOG_FULL') return { refused: error }
      throw describeFailure(error, this.#file)
    }
  }

  #storeFor(connection: UserConnection): UserStore {
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
  #watchForCommit(connection: UserConnection): void {
    if (this.#watched.has(connection)) return
    this.#watched.add(connection)
    const look = async () => {
      for (let delayMs = 0; isOpen(connection); delayMs = Math.min(delayMs * 2 + 1, COMMIT_LOOK_MS_MAX)) {
        await pause(this.#clock, delayMs)
      }
      this.#watched.delete(connection)
      this.#onCommit()
    }
    setImmediate(() => void look())
  }
}

function asConnection(transaction: unknown): UserConnection {
  const candidate = transaction as Partial<UserConnection> | null | undefined
  if (typeof candidate?.prepare === 'function' && ('isTransaction' in candidate || 'inTransaction' in candidate))
    return candidate as UserConnection
  throw invalid('it is neither a node:sqlite DatabaseSync nor a better-sqlite3 Database')
}

function prepare(connection: UserConnection, sql: string): PreparedStatement {
  const statement: PreparedStatement & AnswerSettings = connection.prepare(sql)
  statement.setReadBigInts?.(false)
  statement.setReturnArrays?.(false)
  // better-sqlite3 has it on statements that return rows, and on no others.
  if (typeof statement.safeIntegers === 'function') statement.safeIntegers(false)
  return statement
}

// A user may catch the error and commit all the same: then nothing of the group may be left.
function atomically<T>(statements: StatementCache, work: () => T): T {
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

function rollBack(statements: StatementCache): void {
  try {
    statements.run('ROLLBACK TO posthorn_append')
    statements.run('RELEASE posthorn_append')
  } catch {
    // A full disk makes SQLite roll back the whole transaction by itself.
  }
}

function isOpen(connection: UserConnection): boolean {
  try {
    return flagOf(connection) === true
  } catch {
    // Closed: whatever was open was rolled back.
    return false
  }
}

function flagOf(connection: Partial<UserConnection>): boolean | undefined {
  return connection.isTransaction ?? connection.inTransaction
}

function invalid(problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}
