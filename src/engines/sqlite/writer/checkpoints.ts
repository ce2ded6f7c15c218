import type { Connection } from '../store/file/connection.ts'

/** Under load, the write-ahead log is copied into the database each time it has grown by this much. */
const LOADED_BYTES = 32 * 2 ** 20
/**
 * After a commit of the user's own connection, already when it has grown by this much: at 1,000 pages, 4 MB, SQLite
 * would do it within the next one, on the user's event loop.
 */
const SHARED_BYTES = 2 * 2 ** 20
/** In a quiet moment, already when it has grown by this much. */
const QUIET_BYTES = 512 * 2 ** 10

/** In pages, of the log as a whole and of the part that is in the database already. */
interface LogState {
  readonly log: number
  readonly checkpointed: number
}

/**
 * Decides when the write-ahead log is copied back. SQLite would do it within the commit that passes a threshold, and
 * make its publisher wait; here it runs between two commits, after the first has been acknowledged.
 *
 * The log itself says how much it holds, whoever wrote it: this thread, another process, or the user's own connection.
 * What a checkpoint could not copy, because somebody still reads an older state, is `left`, and only growth beyond it
 * counts: otherwise one long reader would have every turn try again in vain.
 */
export class Checkpoints {
  readonly #connection: Connection
  #leftPages = 0
  #shared = false
  #pageBytes: number | undefined

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** The user's own connection has committed, and will probably do so again. */
  userCommitted(): void {
    this.#shared = true
  }

  isDue(quiet: boolean): boolean {
    const pages = this.#pages()
    this.#leftPages = Math.min(this.#leftPages, pages)
    const limit = quiet ? QUIET_BYTES : this.#shared ? SHARED_BYTES : LOADED_BYTES
    return (pages - this.#leftPages) * this.#pageSize() >= limit
  }

  /** Waits for nobody: what another connection still reads is left for the next time. */
  run(): void {
    this.#shared = false
    try {
      this.#connection.get('PRAGMA wal_checkpoint(PASSIVE)')
    } catch {
      // Another process is at it, or the disk is full: the log only grows until the next time.
    }
    this.#leftPages = this.#pages()
  }

  #pages(): number {
    try {
      const { log, checkpointed } = this.#connection.get<LogState>('PRAGMA wal_checkpoint(NOOP)')!
      return log - checkpointed
    } catch {
      return 0
    }
  }

  #pageSize(): number {
    this.#pageBytes ??= this.#connection.get<{ page_size: number }>('PRAGMA page_size')!.page_size
    return this.#pageBytes
  }
}
