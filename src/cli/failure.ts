import { PosthornError } from '../errors.ts'
import { styled, type Terminal } from './terminal.ts'

/**
 * What a command ends with. 2 is what shells use for a command that was called wrongly, and 130 what they say of one that
 * was interrupted from the keyboard.
 */
export const EXIT = { done: 0, failed: 1, misused: 2, interrupted: 130 } as const

const MISUSES: ReadonlySet<string> = new Set(['POSTHORN_INVALID_OPTION', 'POSTHORN_UNKNOWN_ENGINE'])

/** Says what went wrong, in JSON where that is wanted, and returns the exit code. */
export function report(error: unknown, { log }: Terminal, json: boolean): number {
  const { code, message, action, retryable } = describe(error)
  if (json) log.write(`${JSON.stringify({ error: { code, message, action, retryable } })}\n`)
  else log.write(`${styled('red', 'error', log)} ${message}${code === undefined ? '' : ` [${code}]`}\n`)
  return MISUSES.has(code ?? '') ? EXIT.misused : EXIT.failed
}

function describe(error: unknown) {
  if (error instanceof PosthornError) return error
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return { code: undefined, message, action: undefined, retryable: undefined }
}
