/**
 * For `node --test-global-setup`: what all files of a test run share. A place where Node.js keeps what it has compiled, so
 * that the hundreds of processes of a run do not compile the same sources anew; and a Postgres server, unless there is
 * one.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type PostgresServer, startPostgres } from './postgres.ts'
import { PostgresUnavailable } from './postgres-binaries.ts'
import { ADDRESS_VARIABLE } from './shared-postgres.ts'

let compiled: string | undefined
let server: PostgresServer | undefined

/** Where no Postgres can run it starts none: the tests that need it find out why, and say so. */
export async function globalSetup(): Promise<void> {
  compiled = await mkdtemp(join(tmpdir(), 'posthorn-compiled-'))
  process.env.NODE_COMPILE_CACHE ??= compiled
  if (process.env[ADDRESS_VARIABLE]) return
  try {
    // The files share it, and none of them takes its power away: what has to survive that has a server of its own.
    server = await startPostgres({ fsync: false, settings: { synchronous_commit: 'off', full_page_writes: 'off' } })
    process.env[ADDRESS_VARIABLE] = server.url
  } catch (error) {
    if (!(error instanceof PostgresUnavailable)) throw error
  }
}

export async function globalTeardown(): Promise<void> {
  if (compiled !== undefined) await rm(compiled, { recursive: true, force: true })
  await server?.removeAll()
}
