import { PosthornError } from '../errors.ts'
import { describe } from './duration.ts'

/** Throws POSTHORN_INVALID_OPTION: a program in plain JavaScript learns of a misspelt option at once. */
export function checkOptionNames(what: string, given: unknown, known: ReadonlySet<string>): void {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw invalidOption(what, `it is ${describe(given)}; expected an object`)
  }
  for (const name in given) {
    if (!known.has(name)) throw invalidOption(`${what}.${name}`, `there is none of that name; known are ${list(known)}`)
  }
}

/** The object given for an option that is otherwise true or false. */
export function checkSwitch<Options extends object>(option: string, value: Options): Options {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw invalidOption(option, `it is ${describe(value)}; expected true, false or an object`)
}

/** The whole number given for `option`. */
export function wholeNumber(option: string, value: unknown, range: { min: number; max?: number }): number {
  const { min, max = Number.MAX_SAFE_INTEGER } = range
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) return value as number
  const bounds = range.max === undefined ? `of at least ${min}` : `from ${min} to ${max}`
  throw invalidOption(option, `it is ${describe(value)}; expected a whole number ${bounds}`)
}

/** The one of `choices` that was given for `option`. */
export function oneOf<Choice extends string>(option: string, value: unknown, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  throw invalidOption(option, `it is ${describe(value)}; expected ${choices.map(describe).join(' or ')}`)
}

/** The time of the Date given for `option`, in milliseconds. */
export function timeMs(option: string, value: unknown): number {
  const milliseconds = value instanceof Date ? value.getTime() : Number.NaN
  if (Number.isNaN(milliseconds)) throw invalidOption(option, `it is ${describe(value)}; expected a valid Date`)
  return milliseconds
}

export function invalidOption(option: string, problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_OPTION', { option, problem })
}

function list(names: ReadonlySet<string>): string {
  return [...names].join(', ')
}
