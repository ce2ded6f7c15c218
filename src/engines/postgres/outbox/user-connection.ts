/**
 * The connections on which users have transactions open, as far as Posthorn needs them: something that carries out one
 * statement in the transaction. Each library is known by the shape of its objects, so that none has to be installed.
 */
import { PosthornError } from '../../../errors.ts'
import { isLent } from './lent-client.ts'

export type Parameter = string | boolean

export interface UserConnection {
  /** Whether it is surely on the store's database: it is ours. */
  readonly lent: boolean
  /** Whether a transaction is open on it, where that is known without a question to the server. */
  transactionStatus(): 'open' | 'failed' | 'unknown'
  /** Whether nothing is on its way to the server, as far as that is known: the status is that of what is sent next. */
  isReady(): boolean
  /** Sends the statement before it returns. Resolves with the rows. */
  query(text: string, values: readonly Parameter[]): Promise<readonly unknown[]>
}

type Method = (this: unknown, ...values: unknown[]) => unknown
type Send = (transaction: object, text: string, values: readonly Parameter[]) => unknown

/** By the method that tells the library, in the order in which they are to be looked for. */
const LIBRARIES: readonly (readonly [method: string, send: Send])[] = [
  // Prisma
  ['$queryRawUnsafe', (transaction, text, values) => call(transaction, '$queryRawUnsafe', text, ...values)],
  // Kysely
  ['executeQuery', (transaction, text, values) => call(transaction, 'executeQuery', compiledQuery(text, values))],
  // Knex
  ['raw', (transaction, text, values) => call(transaction, 'raw', ...withQuestionMarks(text, values))],
  // pg, and TypeORM's entity managers and query runners
  ['query', (transaction, text, values) => call(transaction, 'query', text, [...values])],
  // Drizzle takes parameters only in objects of its own
  ['execute', (transaction, text, values) => call(transaction, 'execute', withLiterals(text, values))],
]

/** Throws POSTHORN_INVALID_TRANSACTION when it is nothing on which a transaction could be open. */
export function connectionOf(transaction: unknown): UserConnection {
  if (!isObject(transaction)) throw invalidTransaction(WHAT_IS_TAKEN)
  if (isPool(transaction)) {
    throw invalidTransaction(
      'it is a Pool of pg, which gives each statement another connection; pass one of its clients',
    )
  }
  const [, send] = LIBRARIES.find(([method]) => typeof Reflect.get(transaction, method) === 'function') ?? []
  if (!send) throw invalidTransaction(WHAT_IS_TAKEN)
  return {
    lent: isLent(transaction),
    transactionStatus: () => statusOf(transaction),
    isReady: () => Reflect.get(transaction, 'readyForQuery') === true,
    query: async (text, values) => rowsOf(await send(transaction, text, values)),
  }
}

const WHAT_IS_TAKEN =
  'it is neither a client of pg nor a transaction of Drizzle, Kysely, Prisma, Knex or TypeORM on a Postgres database'

export function invalidTransaction(problem: string, cause?: unknown): PosthornError {
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem }, cause === undefined ? undefined : { cause })
}

function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function'
}

function isPool(transaction: object): boolean {
  return 'totalCount' in transaction && 'idleCount' in transaction
}

function statusOf(transaction: object): 'open' | 'failed' | 'unknown' {
  const ask: unknown = Reflect.get(transaction, 'getTransactionStatus')
  const status = typeof ask === 'function' ? Reflect.apply(ask, transaction, []) : undefined
  if (status === 'T') return 'open'
  // A BEGIN, or a ROLLBACK TO SAVEPOINT, may be on its way.
  return status === 'E' ? 'failed' : 'unknown'
}

function call(target: object, name: string, ...values: unknown[]): unknown {
  return Reflect.apply(Reflect.get(target, name) as Method, target, values)
}

function rowsOf(result: unknown): readonly unknown[] {
  if (Array.isArray(result)) return result
  const rows = (result as { rows?: unknown } | null | undefined)?.rows
  if (Array.isArray(rows)) return rows
  throw invalidTransaction('the library that it comes from answered without rows')
}

let queries = 0

function compiledQuery(text: string, values: readonly Parameter[]) {
  return {
    sql: text,
    parameters: [...values],
    query: { kind: 'RawNode', sqlFragments: [text], parameters: [] },
    queryId: { queryId: `posthorn-${++queries}` },
  }
}

function withQuestionMarks(text: string, values: readonly Parameter[]): [text: string, values: readonly Parameter[]] {
  const inOrder: Parameter[] = []
  const marked = text.replaceAll(/\$(\d+)/g, (_, number: string) => {
    inOrder.push(values[Number(number) - 1]!)
    return '?'
  })
  return [marked, inOrder]
}

function withLiterals(text: string, values: readonly Parameter[]): string {
  return text.replaceAll(/\$(\d+)/g, (_, number: string) => literal(values[Number(number) - 1]!))
}

// The same whatever standard_conforming_strings says, because backslashes are doubled where they stand for themselves.
function literal(value: Parameter): string {
  if (typeof value === 'boolean') return String(value)
  const quoted = value.replaceAll("'", "''")
  return quoted.includes('\\') ? ` E'${quoted.replaceAll('\\', '\\\\')}'` : `'${quoted}'`
}
