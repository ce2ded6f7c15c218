import { hash } from 'node:crypto'

/** Services take so many characters at most; Stripe does. */
const LENGTH_MAX = 255

/** A text for these parts and no others, fit for an HTTP header: readable, or a hash where it would be too long. */
export function idempotencyKeyOf(...parts: readonly string[]): string {
  const key = parts.map((part) => encodeURIComponent(part.toWellFormed())).join(':')
  return key.length <= LENGTH_MAX ? key : `sha256:${hash('sha256', key)}`
}
