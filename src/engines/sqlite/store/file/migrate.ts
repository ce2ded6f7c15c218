import { PosthornError } from '../../../../errors.ts'
import { MIGRATIONS } from '../../sql/migrations.ts'
import { FIND_META_TABLE, FIND_MOVED_TO, READ_SCHEMA_VERSION, SCHEMA, WRITE_SCHEMA_VERSION } from '../../sql/schema.ts'
import type { Connection } from './connection.ts'

/** The schema that this code reads and writes: the first one, plus a version for each migration since. */
export const SCHEMA_VERSION = 1 + MIGRATIONS.length

// Older ones have a race between processes when the write-ahead log is reset (https://www.sqlite.org/wal.html).
const SQLITE_VERSION_MIN = [3, 51, 3] as const

/**
 * Brings the file to this code's schema, all or nothing, in one transaction that other processes wait for. Throws
 * POSTHORN_SCHEMA_TOO_NEW, with nothing changed, when the file is ahead of the code.
 */
export function migrate(connection: Connection): void {
  if (readVersion(connection) === SCHEMA_VERSION) return
  connection.write(() => {
    const version = refuseNewer(connection)
    const steps = version === 0 ? [SCHEMA] : MIGRATIONS.slice(version - 1)
    for (const step of steps) connection.exec(step)
    connection.run(WRITE_SCHEMA_VERSION, SCHEMA_VERSION)
  })
}

/** Throws before anything is written when this process must not work with the file. */
export function refuseForeign(connection: Connection): void {
  refuseOldSqlite(connection)
  refuseNewer(connection)
}

/** Throws POSTHORN_STORE_MOVED when what the file holds lives on elsewhere: it would be handled a second time. */
export function refuseMoved(connection: Connection): void {
  const { file: store } = connection
  const found = connection.waitWhileBusy(() => {
    return connection.get(FIND_META_TABLE) && connection.get<{ movedTo: string }>(FIND_MOVED_TO)
  })
  if (found) throw new PosthornError('POSTHORN_STORE_MOVED', { store, movedTo: (found as { movedTo: string }).movedTo })
}

function refuseNewer(connection: Connection): number {
  const version = readVersion(connection)
  if (version <= SCHEMA_VERSION) return version
  throw new PosthornError('POSTHORN_SCHEMA_TOO_NEW', {
    store: connection.file,
    found: version,
    known: SCHEMA_VERSION,
  })
}

function readVersion(connection: Connection): number {
  return connection.waitWhileBusy(() => {
    if (!connection.get(FIND_META_TABLE)) return 0
    return connection.get<{ version: number }>(READ_SCHEMA_VERSION)?.version ?? 0
  })
}

function refuseOldSqlite(connection: Connection): void {
  const { version } = connection.waitWhileBusy(
    () => connection.get<{ version: string }>('SELECT sqlite_version() AS version')!,
  )
  if (!isAtLeast(version, SQLITE_VERSION_MIN)) {
    throw new PosthornError('POSTHORN_UNSUPPORTED_NODE', {
      found: `SQLite ${version}`,
      needed: `SQLite ${SQLITE_VERSION_MIN.join('.')} or newer`,
    })
  }
}

/** Whether a dotted version is `minimum` or later. */
export function isAtLeast(version: string, minimum: readonly number[]): boolean {
  const parts = version.split('.').map(Number)
  for (const [index, least] of minimum.entries()) {
    const part = parts[index] ?? 0
    if (part !== least) return part > least
  }
  return true
}
