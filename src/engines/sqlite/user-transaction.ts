import { realpathSync } from 'node:fs'
import type { AppendOutcome } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { StatementCache } from './store/connection.ts'
import { describeFailure } from './store/failure.ts'
import { Log } from './store/log.ts'
import type { PackedGroup } from './wire-group.ts'

/** What `node:sqlite` and `better-sqlite3` connections have in common. */
interface UserConnection {
  prepare(sql: string): ReturnType<ConstructorParameters<typeof StatementCache>[0]>
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
  readonly #logs = new WeakMap<object, Log>()
  readonly #watched = new WeakSet<object>()

  constructor(file: string, clock: Clock, onCommit: () => void) {
    this.#file = file
    this.#clock = clock
    this.#onCommit = onCommit
  }

  append(transaction: unknown, pack: () => PackedGroup): AppendOutcome {
    const connection = asConnection(transaction)
    const log = this.#logFor(connection)
    if (!isOpen(connection)) throw invalid('no transaction is open on this connection')
    const packed = pack()
    this.#watchForCommit(connection)
    try {
      return packed.unpack(log.append(packed.group, this.#clock.now()))
    } catch (error) {
      if (error instanceof PosthornError && error.code === 'POSTHORN_BACKLOG_FULL') return { refused: error }
      throw describeFailure(error, this.#file)
    }
  }

  #logFor(connection: UserConnection): Log {
    let log = this.#logs.get(connection)
    if (!log) {
      const statements = new StatementCache((sql) => connection.prepare(sql))
      this.#refuseOtherFile(statements)
      log = new Log(statements)
      this.#logs.set(connection, log)
    }
    return log
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
  if (typeof candidate?.prepare === 'function' && flagOf(candidate) !== undefined) return candidate as UserConnection
  throw invalid('it is neither a node:sqlite DatabaseSync nor a better-sqlite3 Database')
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
