/**
 * What has to be done to the files of a database besides what SQLite does: to force its write-ahead log to the disk, to
 * notice that somebody removed or replaced a file under the process, and to make folders so that they survive a power
 * failure.
 *
 * The log stays the same file as long as a connection is open. Its descriptor is opened with the connection, not with
 * the first publish: a process that has run out of descriptors is told by `connect`, and the system reports a failed
 * write of the log, whoever made it, to every descriptor that was open then. The database file itself is never opened
 * here, because closing any descriptor of it would drop all of SQLite's locks on it.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'

export class LogFile {
  /** The path of the database without links: SQLite keeps the log beside it. */
  readonly database: string
  readonly #log: string
  readonly #descriptor: number
  readonly #databaseStats: Stats

  /** Both files exist. */
  constructor(file: string) {
    this.database = realpathSync(file)
    this.#log = `${this.database}-wal`
    this.#databaseStats = statSync(this.database)
    // Syncing a new file does not make its name survive a power failure.
    syncFolder(dirname(this.database))
    this.#descriptor = openSync(this.#log, 'r+')
  }

  /** Tells the database file from every other one of this machine. */
  get identity(): string {
    return identityOf(this.#databaseStats)
  }

  sync(): void {
    fdatasyncSync(this.#descriptor)
  }

  /** Whether a path no longer leads to the file that is open. */
  isReplaced(): boolean {
    const log = identityOf(fstatSync(this.#descriptor))
    return identityAt(this.#log) !== log || identityAt(this.database) !== this.identity
  }

  close(): void {
    try {
      closeSync(this.#descriptor)
    } catch {
      // Whether the log is on the disk, `sync` has said.
    }
  }
}

/**
 * Makes the folder of a file, if it is missing, and refuses one that may not be written: SQLite opens what it may only
 * read and fails at the first write, and beside the file it makes two others.
 */
export function prepareFolder(file: string): void {
  const folder = dirname(file)
  const firstMade = mkdirSync(folder, { recursive: true })
  if (firstMade !== undefined) syncParents(folder, dirname(firstMade))
  accessSync(folder, constants.R_OK | constants.W_OK)
  if (existsSync(file)) accessSync(file, constants.R_OK | constants.W_OK)
}

function syncParents(folder: string, top: string): void {
  for (let made = folder; made !== top && made !== dirname(made); made = dirname(made)) syncFolder(dirname(made))
}

function syncFolder(folder: string): void {
  const descriptor = openFolder(folder)
  if (descriptor === undefined) return
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

// Where folders cannot be opened (Windows, or no right to read one above), there is nothing to be done.
function openFolder(folder: string): number | undefined {
  try {
    return openSync(folder, 'r')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EMFILE' || code === 'ENFILE') throw error
    return undefined
  }
}

/** The identity of the file that the path leads to, or undefined when there is none. */
export function identityAt(path: string): string | undefined {
  const stats = statOf(path)
  return stats && identityOf(stats)
}

function identityOf({ dev, ino }: Stats): string {
  return `${dev}/${ino}`
}

function statOf(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false })
}
