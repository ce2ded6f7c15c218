import { PosthornError } from '../../errors.ts'
import type { WireError } from './protocol.ts'

/** Errors lose their class when they cross to another thread, so they cross as their code and details. */
export function toWire(error: unknown): WireError {
  if (error instanceof PosthornError) {
    const { code, details, cause } = error
    return { code, details, ...(cause instanceof Error && { cause: describe(cause) }) }
  }
  const problem = error instanceof Error ? error.message : String(error)
  return { code: 'POSTHORN_STORAGE_FAILED', details: { store: 'The file', problem }, cause: describe(error) }
}

export function fromWire({ code, details, cause }: WireError): PosthornError {
  return new PosthornError(code, details, cause === undefined ? undefined : { cause })
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
