import { PosthornError } from '../../errors.ts'

/** Where a Postgres store is, and how it is to be spoken to. */
export interface PostgresAddress {
  /** What `pg` connects to: without the settings that are Posthorn's own. */
  readonly connectionString: string
  /** As it may stand in errors and logs: without user and password. */
  readonly label: string
  /** The schema that holds the tables. */
  readonly schema: string
  /** How many connections this process may have open, beside the one that keeps its session alive. */
  readonly connectionsMax: number
  /** Each transaction may be given another connection of the server: no LISTEN, and no prepared statements. */
  readonly transactionPooling: boolean
}

const CONNECTIONS_MAX = 6
const CONNECTIONS_LEAST = 2
const NAME = /^[a-z_][a-z0-9_]{0,62}$/

/**
 * Reads `postgres://user:password@host:port/database`, with `?schema=` (default `posthorn`), `?connections=` (default
 * 6) and `?pooling=transaction` (for PgBouncer in that mode). What else stands behind the question mark is `pg`'s.
 * Throws POSTHORN_INVALID_OPTION.
 */
export function parsePostgresAddress(text: string): PostgresAddress {
  const url = parse(text)
  const take = (name: string): string | undefined => {
    const value = url.searchParams.get(name) ?? undefined
    url.searchParams.delete(name)
    return value
  }
  const schema = take('schema') ?? 'posthorn'
  if (!NAME.test(schema)) throw invalid('schema', 'it is not a lower-case SQL name of up to 63 characters')
  const pooling = take('pooling')
  if (pooling !== undefined && pooling !== 'transaction' && pooling !== 'session') {
    throw invalid('pooling', 'it is neither transaction nor session')
  }
  const connectionsMax = readConnections(take('connections'))
  const label = `postgres://${url.host}${url.pathname}?schema=${schema}`
  return { connectionString: url.href, label, schema, connectionsMax, transactionPooling: pooling === 'transaction' }
}

function parse(text: string): URL {
  try {
    return new URL(text)
  } catch {
    throw invalid('url', 'it is not of the form postgres://user:password@host:port/database')
  }
}

function readConnections(text: string | undefined): number {
  if (text === undefined) return CONNECTIONS_MAX
  const connections = Number(text)
  if (Number.isSafeInteger(connections) && connections >= CONNECTIONS_LEAST) return connections
  throw invalid('connections', `it is ${JSON.stringify(text)}; expected a whole number from ${CONNECTIONS_LEAST} on`)
}

function invalid(option: string, problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_OPTION', { option, problem })
}
