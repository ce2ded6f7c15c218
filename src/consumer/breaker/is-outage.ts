/**
 * Tells an outage of what a handler depends on from a failure of one message, by the shapes that errors have in Node
 * (`code`), fetch and undici (`cause`), HTTP clients (`status`, `statusCode`, `response`), Stripe (`statusCode`, the
 * connection's error in `detail`) and Nodemailer (`code`, `responseCode`).
 */
import { Discard } from '../outcomes.ts'
import { isInstance, propertyOf } from '../settlement/failure.ts'

const DEPTH_MAX = 5
// A cause may lead back to where it came from, and lists may be long.
const ERRORS_MAX = 100

const codes: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ESOCKETTIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_SOCKET',
  'ESOCKET',
  'ECONNECTION',
  'EDNS',
  'POSTHORN_HANDLER_TIMEOUT',
  'POSTHORN_STEP_TIMEOUT',
])
/** Too many requests, bad gateway, service unavailable, gateway timeout. */
const statuses: ReadonlySet<unknown> = new Set([429, 502, 503, 504])
/** SMTP: service not available, closing transmission channel. */
const SMTP_NOT_AVAILABLE = 421

/**
 * Whether an error says that a service is down, cannot be reached, or is overloaded: refused, reset, timed out, no
 * such host, HTTP 429, 502, 503 or 504, SMTP 421, or a handler or step that outran its timeout. Looks at the error, its
 * causes, and what an AggregateError holds, five levels deep. A `Discard` is never one.
 */
export function isOutage(error: unknown): boolean {
  return outageIn(error) !== undefined
}

/** Of an error and what is behind it, the one that says so. */
export function outageIn(error: unknown): unknown {
  if (isInstance(error, Discard)) return undefined
  return errorsIn(error).find(saysOutage)
}

/** An error and what it holds, outermost first. */
export function errorsIn(error: unknown): readonly unknown[] {
  const found = new Set<unknown>([error])
  let level: readonly unknown[] = [error]
  for (let depth = 1; depth < DEPTH_MAX && level.length > 0; depth++) {
    level = level.flatMap(errorsBehind).filter((other) => !found.has(other))
    for (const other of level.slice(0, ERRORS_MAX - found.size)) found.add(other)
    level = level.filter((other) => found.has(other))
  }
  return [...found]
}

function errorsBehind(error: unknown): readonly unknown[] {
  const behind = [propertyOf(error, 'cause'), propertyOf(error, 'detail'), ...listAt(error, 'errors')]
  return behind.filter((other) => typeof other === 'object' && other !== null)
}

function listAt(error: unknown, property: string): readonly unknown[] {
  const list = propertyOf(error, property)
  try {
    return Array.isArray(list) ? list.slice(0, ERRORS_MAX) : []
  } catch {
    return []
  }
}

function saysOutage(error: unknown): boolean {
  if (codes.has(propertyOf(error, 'code'))) return true
  if (propertyOf(error, 'name') === 'TimeoutError') return true
  if (propertyOf(error, 'responseCode') === SMTP_NOT_AVAILABLE) return true
  return saysStatus(error) || saysStatus(propertyOf(error, 'response'))
}

function saysStatus(holder: unknown): boolean {
  return statuses.has(propertyOf(holder, 'status')) || statuses.has(propertyOf(holder, 'statusCode'))
}
