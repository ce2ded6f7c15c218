/** For `node --test-global-setup`: starts the server that the files of a test run share, unless there is one. */
import { type PostgresServer, startPostgres } from './postgres.ts'
import { PostgresUnavailable } from './postgres-binaries.ts'
import { ADDRESS_VARIABLE } from './shared-postgres.ts'

let server: PostgresServer | undefined

/** Where no Postgres can run it does nothing: the tests that need it find out why, and say so. */
export async function globalSetup(): Promise<void> {
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
  await server?.removeAll()
}
