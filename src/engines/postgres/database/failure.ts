import { PosthornError } from '../../../errors.ts'

/** What `pg` and the server say of a failure. */
interface ServerFailure extends Error {
  /** An SQLSTATE, or a code of the operating system. */
  readonly code?: string
  /** What the server says has one. */
  readonly severity?: string
}

const CLASS_LENGTH = 2
/** SQLSTATE classes: data exception, integrity constraint violation, program limit exceeded. */
const OF_THE_DATA = new Set(['22', '23', '54'])
const ENDS_CONNECTION = new Set(['FATAL', 'PANIC'])
/** SQLSTATE classes: connection exception, invalid authorization, invalid catalog name. */
const UNREACHABLE_CLASSES = new Set(['08', '28', '3D'])
/** A server that only reads: a replica, which is no more or not yet the one that writes. */
const READ_ONLY = '25006'
/** Too many connections; no privilege. */
const UNREACHABLE = new Set(['53300', '42501', READ_ONLY])
/** The server ends the connection: it shuts down, has crashed, starts up; was idle for too long, in a transaction too. */
const ENDED = new Set(['57P01', '57P02', '57P03', '57P05', '25P03'])
/** Cancelled by a statement timeout; a lock that could not be had; a deadlock. */
const BUSY = new Set(['57014', '55P03', '40P01'])
/** A prepared statement that is not there, or is already: whoever prepared it had another connection of the server. */
const NOT_PREPARED_HERE = new Set(['26000', '42P05'])
const SAY_SO = 'the server is behind a pooler that gives each transaction another connection: add ?pooling=transaction'
/** `pg` gives no code for what it notices itself. */
const NOT_CONNECTED = /^SASL|\bSSL connections?\b|^timeout (?:exceeded when trying to connect|expired)/
const CONNECTION_ENDED = /connection terminated|connection error|not queryable/i
const READ_TIMEOUT = /query read timeout/i

/** Whether the connection, rather than the statement, failed: nothing is known of what was under way on it. */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof PosthornError) return false
  const { code = '', message, severity } = error as ServerFailure
  if (code === '') return [NOT_CONNECTED, CONNECTION_ENDED, READ_TIMEOUT].some((known) => known.test(message))
  // No server has said it: it is the network's, the system's or that of the encryption.
  if (severity === undefined) return true
  return ENDS_CONNECTION.has(severity) || code.startsWith('08') || ENDED.has(code)
}

/** Whether another connection may serve better: it may lead to another server. */
export function isOfNoUse(error: unknown): boolean {
  return isConnectionFailure(error) || (error as ServerFailure).code === READ_ONLY
}

/** Whether something in what was to be stored is to blame, and without it the rest would go well. */
export function isOfTheData(error: unknown): boolean {
  const source = error instanceof PosthornError ? error.cause : error
  if (source === undefined) return false
  const { code } = source as ServerFailure
  // A mistake of the code's own, which some value has brought about.
  if (code === undefined) return source instanceof TypeError || source instanceof RangeError
  return OF_THE_DATA.has(code.slice(0, CLASS_LENGTH))
}

/** The coded error for what went wrong in the store called `store`. A coded one stays as it is. */
export function describeFailure(error: unknown, store: string): PosthornError {
  if (error instanceof PosthornError) return error
  const { code = '', message } = error as ServerFailure
  const problem = NOT_PREPARED_HERE.has(code) ? SAY_SO : message || code
  const cause = { cause: error }
  if (code === '53100' || code === '53400') return new PosthornError('POSTHORN_STORAGE_FULL', { store }, cause)
  if (BUSY.has(code) || READ_TIMEOUT.test(message)) {
    return new PosthornError('POSTHORN_STORAGE_FAILED', { store, problem }, cause)
  }
  const unreachable =
    UNREACHABLE.has(code) || UNREACHABLE_CLASSES.has(code.slice(0, CLASS_LENGTH)) || isConnectionFailure(error)
  return new PosthornError(
    unreachable ? 'POSTHORN_STORAGE_UNAVAILABLE' : 'POSTHORN_STORAGE_FAILED',
    { store, problem },
    cause,
  )
}
