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
/** Names that begin with "pg_" are the server's. */
const NAME = /^(?!pg_)[a-z_][a-z0-9_]{0,62}$/
const OURS = ['schema', 'connections', 'pooling'] as const
/** What is worth being told of, when somebody has mistyped it: without it everything works, but in the wrong way. */
const MISTYPED = [...OURS, 'sslmode', 'sslrootcert', 'sslcert', 'sslkey']
/** Like one of these, and yet something else. */
const UNMISTAKEN = ['sslcrl']
const MISTAKES_MAX = 2

/**
 * Reads `postgres://user:password@host:port/database`, with `?schema=` (default `posthorn`), `?connections=` (default
 * 6) and `?pooling=transaction` (for PgBouncer in that mode). What else stands behind the question mark is `pg`'s.
 * Throws POSTHORN_INVALID_OPTION.
 */
export function parsePostgresAddress(text: string): PostgresAddress {
  const url = parse(text)
  refuseMistyped([...url.searchParams.keys()])
  const take = (name: string): string | undefined => {
    const value = url.searchParams.get(name) ?? undefined
    url.searchParams.delete(name)
    return value
  }
  const schema = take('schema') ?? 'posthorn'
  if (!NAME.test(schema)) throw invalid('schema', NO_SCHEMA_NAME)
  const pooling = take('pooling')
  if (pooling !== undefined && pooling !== 'transaction' && pooling !== 'session') {
    throw invalid('pooling', 'it is neither transaction nor session')
  }
  const connectionsMax = readConnections(take('connections'))
  const label = `postgres://${url.host}${url.pathname}?schema=${schema}`
  return { connectionString: url.href, label, schema, connectionsMax, transactionPooling: pooling === 'transaction' }
}

const NO_SCHEMA_NAME = 'it is not a lower-case SQL name of up to 63 characters that does not begin with pg_'
const UNENCODED = 'a user or password in it that has any of @ : / ? # % must be percent-encoded'

/** Nothing of the text is repeated: it may be a password. */
function parse(text: string): URL {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw invalid('url', `it is not of the form postgres://user:password@host:port/database, or ${UNENCODED}`)
  }
  const isCut = url.hash !== '' || /[@/]/.test(url.pathname.slice(1))
  if (isCut) throw invalid('url', `${UNENCODED}, and the name of a database has no slash`)
  return url
}

function refuseMistyped(names: readonly string[]): void {
  for (const name of OURS) {
    if (names.indexOf(name) !== names.lastIndexOf(name)) throw invalid('url', `it has the parameter ${name} twice`)
  }
  for (const name of names) {
    if (MISTYPED.includes(name) || UNMISTAKEN.includes(name)) continue
    const meant = MISTYPED.find((known) => isNear(name.toLowerCase(), known))
    if (meant !== undefined) throw invalid('url', `it has the parameter ${name}; did you mean ${meant}?`)
  }
}

/** Whether one becomes the other by few letters that are added, left out or changed (Levenshtein's distance). */
function isNear(one: string, other: string): boolean {
  let distances = Array.from({ length: other.length + 1 }, (_, place) => place)
  for (const [row, letter] of [...one].entries()) {
    const next = [row + 1]
    for (let place = 0; place < other.length; place++) {
      const changed = distances[place]! + (other[place] === letter ? 0 : 1)
      next.push(Math.min(changed, distances[place + 1]! + 1, next[place]! + 1))
    }
    distances = next
  }
  return distances[other.length]! <= MISTAKES_MAX
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
