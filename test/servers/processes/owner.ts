/** Starts a Postgres server, says where it is, and then waits to be killed, or to be told to end without stopping it. */
import { startPostgres } from '../postgres.ts'

const { url, folder } = await startPostgres()
process.once('message', () => process.disconnect())
process.send!({ url, folder })
