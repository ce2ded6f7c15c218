import type { Connection } from '../store/connection.ts'

/** Under load, the write-ahead log is copied into the database each time it has grown by this much. */
const LOADED_BYTES = 32 * 2 ** 20
/** In a quiet moment, already when it has grown by this much. */
const QUIET_BYTES = 512 * 2 ** 10
/** What a small commit adds, in pages of 4 KiB. */
const COMMIT_BYTES = 16 * 2 ** 10

/**
 * Decides when the write-ahead log is copied back. SQLite would do it within the commit that passes a threshold, and
 * make its publisher wait; here it runs between two commits, after the first has been acknowledged.
 */
export class Checkpoints {
  readonly #connection: Connection
  #bytes = 0

  constructor(connection: Connection) {
    this.#connection = connection
  }

  committed(bytes: number): void {
    this.#bytes += bytes + COMMIT_BYTES
  }

  isDue(quiet: boolean): boolean {
    return this.#bytes >= (quiet ? QUIET_BYTES : LOADED_BYTES)
  }

  /** Waits for nobody: what another connection still reads is left for the next time. */
  run(): void {
    this.#bytes = 0
    try {
      this.#connection.get('PRAGMA wal_checkpoint(PASSIVE)')
    } catch {
      // Another process is at it, or the disk is full: the log only grows until the next time.
    }
  }
}
