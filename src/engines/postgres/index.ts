/**
 * The Postgres engine: the log, and what is under way, in a few tables beside the user's own.
 *
 * delivery/ decides who has what, in turns that lock a subscription; log/ stores and reads record batches; settlement/
 * and order/ keep what is set aside, dead or done in steps; consumers/ keeps sessions alive and gives up dead ones;
 * limits/ admits messages; outbox/ takes part in the user's transactions; operators/ is for people. database/ alone
 * knows the driver, and sql/ holds every statement.
 */
import type { ConnectEngine, Engine } from '../../engine.ts'
import { parsePostgresAddress } from './address.ts'
import { PostgresEngine } from './postgres-engine.ts'

/** Opens `postgres://...`: see `parsePostgresAddress` for what the URL may say. */
export const connectPostgres: ConnectEngine = async (url, options) => {
  return PostgresEngine.open(parsePostgresAddress(String(url)), options)
}

/** Ends the engine as the death of its process would. For tests of what happens then. */
export async function abandonPostgresEngine(engine: Engine): Promise<void> {
  if (engine instanceof PostgresEngine) await engine.abandon()
}
