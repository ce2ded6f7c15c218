/**
 * One connection to the file, and the only place that begins and ends transactions.
 *
 * Writers of one SQLite file exclude each other. SQLite's own busy handler sleeps 1, 2, 5, 10, ... ms between tries,
 * which is far longer than our transactions last, so the connection waits by itself in steps of a fraction of a
 * millisecond.
 *
 * Committing and making durable are two steps. SQLite would do both under the write lock (synchronous = FULL), and
 * every other process would wait for the disk as well. Here a commit only writes the log (synchronous = NORMAL), and
 * `sync` forces the log to the disk outside of the lock, before anything is acknowledged that must survive a power
 * failure. Leases and settlements need not: losing them costs a second delivery. A later sync covers them, as the log
 * is one file in order, and so does a checkpoint, which syncs the log before it copies from it.
 */
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { PosthornError } from '../../../../errors.ts'
import { IN_MEMORY, type SqliteAddress } from '../../address.ts'
import { BUSY_LIMIT_MS, describeFailure, isBusy } from './failure.ts'
import { LogFile, prepareFolder } from './log-file.ts'

/** The part of a database connection that the store needs; the user's own connection fits it too. */
export interface Statements {
  run(sql: string, ...values: SQLInputValue[]): { changes: number | bigint; lastInsertRowid: number | bigint }
  get<Row>(sql: string, ...values: SQLInputValue[]): Row | undefined
  all<Row>(sql: string, ...values: SQLInputValue[]): Row[]
}

interface PreparedStatement {
  run(...values: SQLInputValue[]): { changes: number | bigint; lastInsertRowid: number | bigint }
  get(...values: SQLInputValue[]): unknown
  all(...values: SQLInputValue[]): unknown[]
}

/** Prepares each SQL text once. All SQL is static, so the cache stays as small as the code. */
export class StatementCache implements Statements {
  readonly #prepare: (sql: string) => PreparedStatement
  readonly #prepared = new Map<string, PreparedStatement>()

  constructor(prepare: (sql: string) => PreparedStatement) {
    this.#prepare = prepare
  }

  run(sql: string, ...values: SQLInputValue[]) {
    return this.#statement(sql).run(...values)
  }

  get<Row>(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined
  }

  all<Row>(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[]
  }

  #statement(sql: string): PreparedStatement {
    let statement = this.#prepared.get(sql)
    if (!statement) {
      statement = this.#prepare(sql)
      this.#prepared.set(sql, statement)
    }
    return statement
  }
}

// Our own transactions hold the lock for a fraction of a millisecond; only a stranger's is worth sleeping for.
const BUSY_WAIT_MS_FIRST = 0.05
const BUSY_WAIT_MS_GROWTH = 1.02
const BUSY_WAIT_MS_MAX = 2

const sleepCell = new Int32Array(new SharedArrayBuffer(4))

export class Connection extends StatementCache {
  readonly file: string
  readonly #database: DatabaseSync
  #log: LogFile | undefined
  #longestWaitMs = 0

  private constructor(database: DatabaseSync, file: string) {
    super((sql) => database.prepare(sql))
    this.#database = database
    this.file = file
  }

  /**
   * Opens or creates the file. Throws a coded error, and leaves the file as it was when it is not ours, or when `check`
   * throws.
   */
  static open(address: SqliteAddress, check: (connection: Connection) => void): Connection {
    const { file } = address
    try {
      if (file !== IN_MEMORY) prepareFolder(file)
      const connection = new Connection(new DatabaseSync(file, { timeout: 0 }), file)
      try {
        check(connection)
        connection.#configure(address)
        if (file !== IN_MEMORY) connection.#openLog()
      } catch (error) {
        connection.close()
        throw error
      }
      return connection
    } catch (error) {
      throw openFailure(error, file)
    }
  }

  /** Opens a file that another connection of this process has open, to look at and not to change. */
  static openToRead(file: string): Connection {
    try {
      return new Connection(new DatabaseSync(file, { readOnly: true, timeout: 0 }), file)
    } catch (error) {
      throw openFailure(error, file)
    }
  }

  exec(sql: string): void {
    this.#database.exec(sql)
  }

  /**
   * Runs `work` in one write transaction, and rolls it back when it throws. Once it returns, the transaction outlives
   * every process, and other connections see it; it outlives a power failure after the next `sync`.
   */
  write<T>(work: () => T): T {
    this.waitWhileBusy(() => this.#database.exec('BEGIN IMMEDIATE'))
    try {
      const result = work()
      this.#database.exec('COMMIT')
      return result
    } catch (error) {
      this.#rollBack()
      throw describeFailure(error, this.file)
    }
  }

  /** Where the file really is, whatever links lead to it. Undefined for a database in memory. */
  get realFile(): string | undefined {
    return this.#log?.database
  }

  /** Tells the file from every other one. Undefined for a database in memory. */
  get identity(): string | undefined {
    return this.#log?.identity
  }

  /**
   * Forces everything committed until now to stable storage. Throws when that fails: then nobody knows what is stored,
   * and the file must be opened anew. Throws POSTHORN_STORAGE_REPLACED like `refuseReplaced`.
   */
  sync(): void {
    this.#log?.sync()
    this.refuseReplaced()
  }

  /**
   * Throws POSTHORN_STORAGE_REPLACED when the database or its log is no longer what their paths lead to: all that is
   * written then is gone with the last process that has them open.
   */
  refuseReplaced(): void {
    if (this.#log?.isReplaced()) throw new PosthornError('POSTHORN_STORAGE_REPLACED', { store: this.file })
  }

  /**
   * Copies the whole log into the database and begins it anew. After a sync that failed, the system may have dropped
   * pages of the log and take them for written: the next sync would succeed, and a power failure would end the log at
   * the gap, before everything that was acknowledged since.
   */
  emptyLog(): void {
    if (this.#log === undefined) return
    const { busy } = this.waitWhileBusy(() => this.get<{ busy: number }>('PRAGMA wal_checkpoint(TRUNCATE)'))!
    if (busy === 0) return
    const problem = 'the disk failed, the log has to be emptied, and another connection is reading it'
    throw new PosthornError('POSTHORN_STORAGE_UNAVAILABLE', { store: this.file, problem })
  }

  /** Runs `work`, which only reads, on one state of the file. */
  read<T>(work: () => T): T {
    return this.waitWhileBusy(() => {
      this.#database.exec('BEGIN')
      try {
        return work()
      } finally {
        this.#rollBack()
      }
    })
  }

  /** The rows one after the other, where all of them at once would be too many for memory. */
  *iterate<Row>(sql: string, ...values: SQLInputValue[]): Generator<Row, void> {
    try {
      yield* this.#database.prepare(sql).iterate(...values) as Iterable<Row>
    } catch (error) {
      throw describeFailure(error, this.file)
    }
  }

  /** The longest wait for another connection's lock since the last call. Milliseconds. */
  takeLongestWaitMs(): number {
    const longestMs = this.#longestWaitMs
    this.#longestWaitMs = 0
    return longestMs
  }

  /** Runs `attempt` until another connection's lock no longer stops it. */
  waitWhileBusy<T>(attempt: () => T): T {
    let waitMs = BUSY_WAIT_MS_FIRST
    let waitedMs = 0
    for (;;) {
      try {
        return attempt()
      } catch (error) {
        if (!isBusy(error) || waitedMs >= BUSY_LIMIT_MS) throw describeFailure(error, this.file)
        Atomics.wait(sleepCell, 0, 0, waitMs)
        waitedMs += waitMs
        this.#longestWaitMs = Math.max(this.#longestWaitMs, waitedMs)
        waitMs = Math.min(waitMs * BUSY_WAIT_MS_GROWTH, BUSY_WAIT_MS_MAX)
      }
    }
  }

  close(): void {
    this.#database.close()
    this.#log?.close()
    this.#log = undefined
  }

  #configure({ file, maxBytes }: SqliteAddress): void {
    if (file !== IN_MEMORY) {
      const mode = this.waitWhileBusy(
        () => this.#database.prepare('PRAGMA journal_mode = WAL').get() as { journal_mode: string },
      )
      if (mode.journal_mode !== 'wal') throw new PosthornError('POSTHORN_STORAGE_READ_ONLY', { file })
    }
    this.waitWhileBusy(() => this.#database.exec('PRAGMA foreign_keys = OFF'))
    this.waitWhileBusy(() => configureCommits(this.#database))
    if (maxBytes !== undefined) this.waitWhileBusy(() => limitBytes(this.#database, maxBytes))
  }

  // SQLite makes the log when it first reads.
  #openLog(): void {
    this.waitWhileBusy(() => this.get('SELECT 1 FROM sqlite_schema'))
    this.#log = new LogFile(this.file)
  }

  #rollBack(): void {
    // SQLite has rolled back by itself after some failures, such as a full disk.
    if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
  }
}

/** Of every connection of ours that writes. */
export function configureCommits(database: DatabaseSync): void {
  // Checkpoints run between commits, in writer/checkpoints.ts, never inside of one that somebody waits for.
  database.exec('PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864')
}

/** Bounds what the connection may make of the file. */
export function limitBytes(database: DatabaseSync, maxBytes: number): void {
  const { page_size } = database.prepare('PRAGMA page_size').get() as { page_size: number }
  database.exec(`PRAGMA max_page_count = ${Math.floor(maxBytes / page_size)}`)
}

const UNAVAILABLE: ReadonlySet<string> = new Set(['EEXIST', 'ENOTDIR', 'ENAMETOOLONG', 'EMFILE', 'ENFILE'])

function openFailure(error: unknown, file: string): PosthornError {
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM') {
    return new PosthornError('POSTHORN_STORAGE_READ_ONLY', { file }, { cause: error })
  }
  if (UNAVAILABLE.has(code ?? '')) {
    const { message: problem } = error as Error
    return new PosthornError('POSTHORN_STORAGE_UNAVAILABLE', { store: file, problem }, { cause: error })
  }
  return describeFailure(error, file)
}
