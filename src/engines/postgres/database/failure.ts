import { PosthornError } from '../../../errors.ts'

/** What `pg` and the server say of a failure. */
interface ServerFailure extends Error {
  /** An SQLSTATE, or a code of the operating system. */
  readonly code?: string
}

const CLASS_LENGTH = 2
const NETWORK = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'ETIMEDOUT', 'EPIPE', 'EHOSTUNREACH', 'EAI_AGAIN'])
/** SQLSTATE classes: connection exception, invalid authorization, invalid catalog name. */
const UNREACHABLE_CLASSES = new Set(['08', '28', '3D'])
/** Too many connections; shutting down, crashed, starting up, not accepting connections; no privilege. */
const UNREACHABLE = new Set(['53300', '57P01', '57P02', '57P03', '57P05', '42501'])
/** Cancelled by a statement timeout; a lock that could not be had; a deadlock. */
const BUSY = new Set(['57014', '55P03', '40P01'])
/** `pg` gives no code for what it notices itself. */
const CONNECTION_ENDED = /connection terminated|connection error|not queryable|timeout exceeded when trying to connect/i
const READ_TIMEOUT = /query read timeout/i

/** Whether the connection, rather than the statement, failed: nothing is known of what was under way on it. */
export function isConnectionFailure(error: unknown): boolean {
  const { code = '', message } = error as ServerFailure
  if (code === '') return CONNECTION_ENDED.test(message) || READ_TIMEOUT.test(message)
  return NETWORK.has(code) || code.startsWith('08') || (code.startsWith('57P') && UNREACHABLE.has(code))
}

/** The coded error for what went wrong in the store called `store`. A coded one stays as it is. */
export function describeFailure(error: unknown, store: string): PosthornError {
  if (error instanceof PosthornError) return error
  const { code = '', message } = error as ServerFailure
  const problem = message === '' ? code : message
  const cause = { cause: error }
  if (code === '53100' || code === '53400') return new PosthornError('POSTHORN_STORAGE_FULL', { store }, cause)
  if (code === '25006') return new PosthornError('POSTHORN_STORAGE_READ_ONLY', { file: store }, cause)
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
