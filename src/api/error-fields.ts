import type { LogFields } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'

/** An error as flat log fields: an Error itself has no enumerable message. */
export function errorFields(error: unknown): LogFields {
  if (error instanceof PosthornError) return { code: error.code, error: error.message }
  return { error: error instanceof Error ? error.message : String(error) }
}
