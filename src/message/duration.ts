import { PosthornError } from '../errors.ts'

export type DurationUnit = 'ms' | 's' | 'm' | 'h' | 'd'

/** A length of time: a number of milliseconds, or a number with a unit, such as `'250ms'`, `'30s'`, `'10m'`, `'2h'`, `'7d'`. */
export type Duration = number | `${number}${DurationUnit}`

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const FORM = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
const EXPECTED = "expected milliseconds as a number, or a string such as '250ms', '30s', '10m', '2h' or '7d'"

// A hundred years: longer ones are mistakes, and their sums with the time of day would leave what a Date can hold.
const DURATION_MS_MAX = 100 * 365 * 86_400_000

/**
 * The whole milliseconds of the duration given for `option`. Throws POSTHORN_INVALID_OPTION when it is not a duration,
 * or shorter than `minMs`.
 */
export function parseDuration(value: unknown, option: string, minMs = 0): number {
  const milliseconds = typeof value === 'string' ? parseText(value) : value
  if (typeof milliseconds !== 'number' || !(milliseconds >= 0 && milliseconds <= DURATION_MS_MAX)) {
    throw new PosthornError('POSTHORN_INVALID_OPTION', { option, problem: `it is ${describe(value)}; ${EXPECTED}` })
  }
  if (milliseconds < minMs) {
    const problem = `it is ${describe(value)}; expected at least ${minMs} ms`
    throw new PosthornError('POSTHORN_INVALID_OPTION', { option, problem })
  }
  return Math.round(milliseconds)
}

function parseText(text: string): number | undefined {
  const match = FORM.exec(text)
  return match === null ? undefined : Number(match[1]) * UNIT_MS[match[2]!]!
}

/** How a value that was not expected is shown in an error: short, and safe for whatever it is. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value)
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}
