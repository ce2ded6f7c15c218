import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { PosthornError } from '../../../errors.ts'
import { IN_MEMORY, parseSqliteAddress } from '../address.ts'
import * as sql from '../sql/moving.ts'
import { FIND_META_TABLE } from '../sql/schema.ts'
import { Sessions } from '../store/consumers/sessions.ts'
import { Recall } from '../store/delivery/recall.ts'
import { Connection } from '../store/file/connection.ts'
import { describeFailure, isBusy } from '../store/file/failure.ts'
import { migrate, refuseForeign } from '../store/file/migrate.ts'
import { Ownership } from '../store/order/ownership.ts'
import { settlementParts } from '../store/settlement/parts.ts'

/**
 * Opens a file so that nobody else has it open as long as we have. In this mode SQLite takes a lock that every open
 * connection of a write-ahead log stands in the way of: also those of processes that only publish, of which the file
 * knows nothing. Throws POSTHORN_STORE_IN_USE, which names those that it does know.
 */
export function openAlone(url: string, nowMs: number): Connection {
  const { file } = parseSqliteAddress(url)
  if (file === IN_MEMORY) throw unavailable(url, 'it is in the memory of one process')
  if (!existsSync(file)) throw unavailable(file, 'there is no such file')
  const connection = Connection.open({ file }, (opened) => {
    takeAlone(opened, nowMs)
    refuseForeign(opened)
    if (!opened.get(FIND_META_TABLE)) throw unavailable(file, 'there are no tables of Posthorn in it')
  })
  try {
    migrate(connection)
    connection.write(() => giveUpSessions(connection, nowMs))
  } catch (error) {
    connection.close()
    throw error
  }
  return connection
}

/** What the file is known by, wherever it is moved to. */
export function storeIdOf(connection: Connection): string {
  return connection.write(() => {
    const stored = connection.get<{ storeId: string }>(sql.FIND_STORE_ID)
    if (stored) return stored.storeId
    const storeId = randomUUID()
    connection.run(sql.KEEP_STORE_ID, storeId)
    return storeId
  })
}

function takeAlone(connection: Connection, nowMs: number): void {
  connection.exec('PRAGMA locking_mode = EXCLUSIVE')
  try {
    connection.get('SELECT 1 FROM sqlite_schema')
  } catch (error) {
    if (!isBusy(error)) throw describeFailure(error, connection.file)
    const users = usersOf(connection.file, nowMs)
    throw new PosthornError('POSTHORN_STORE_IN_USE', { store: connection.file, users }, { cause: error })
  }
}

function usersOf(file: string, nowMs: number): string {
  const living = livingSessions(file, nowMs)
  if (living.length === 0) return 'another process, which consumes nothing'
  return living.map(({ pid, host }) => `process ${pid} on ${host}`).join(', ')
}

// Somebody who does not share the file at all keeps even readers out.
function livingSessions(file: string, nowMs: number) {
  const connection = Connection.openToRead(file)
  try {
    return sessionsOf(connection)
      .list()
      .filter((session) => session.leaseUntilMs > nowMs && !isDead(session))
  } catch {
    return []
  } finally {
    connection.close()
  }
}

// Of processes of other hosts, or of containers, this one knows nothing.
function isDead({ host, pid }: { readonly host: string; readonly pid: number }): boolean {
  if (host !== hostname()) return false
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

// As nobody has the file open, whoever has a session died with it.
function giveUpSessions(connection: Connection, nowMs: number): void {
  const sessions = sessionsOf(connection)
  for (const { id } of sessions.list()) sessions.giveUp(Number(id), nowMs)
}

function sessionsOf(connection: Connection): Sessions {
  const { leases, exceptions, chains } = settlementParts(connection)
  return new Sessions(connection, new Recall(leases, exceptions, chains), new Ownership(connection, chains))
}

function unavailable(store: string, problem: string): PosthornError {
  return new PosthornError('POSTHORN_STORAGE_UNAVAILABLE', { store, problem })
}
