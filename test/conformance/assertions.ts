import assert from 'node:assert/strict'
import type { ErrorCode } from '../../src/errors.ts'
import { PosthornError } from '../../src/errors.ts'

export function assertCode(error: unknown, code: ErrorCode): void {
  assert.ok(error instanceof PosthornError, String(error))
  assert.equal(error.code, code)
}
