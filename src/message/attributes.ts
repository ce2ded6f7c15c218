import { describe } from './duration.ts'
import { invalidOption } from './options.ts'

const TEXT_LENGTH_MAX = 1_024
const HEADER_NAME = /^[a-z0-9]{1,64}$/
const CONTROL_CHARACTER = /\p{Cc}/u

/** The attributes that Posthorn writes itself, which a header must not replace. */
const reservedAttributes = new Set([
  'data',
  'datacontenttype',
  'dataschema',
  'expirytime',
  'id',
  'source',
  'specversion',
  'subject',
  'time',
  'type',
])

/** Throws POSTHORN_INVALID_OPTION unless `value` can be a CloudEvents id, subject or source. */
export function checkText(option: string, value: unknown): asserts value is string {
  if (typeof value !== 'string' || value.length === 0 || value.length > TEXT_LENGTH_MAX) {
    throw invalidOption(option, `it is ${describe(value)}; expected a string of 1 to ${TEXT_LENGTH_MAX} characters`)
  }
  checkCharacters(option, value)
}

/** The headers as JSON members, each with a comma before it. Throws POSTHORN_INVALID_OPTION. */
export function encodeHeaders(headers: unknown): string {
  if (typeof headers !== 'object' || headers === null) {
    throw invalidOption('headers', `it is ${describe(headers)}; expected an object of strings`)
  }
  let json = ''
  for (const [name, value] of Object.entries(headers)) {
    checkHeader(name, value)
    json += `,"${name}":${JSON.stringify(value)}`
  }
  return json
}

function checkHeader(name: string, value: unknown): void {
  const option = `headers.${name}`
  if (!HEADER_NAME.test(name)) {
    throw invalidOption(option, 'a name consists of 1 to 64 lower-case letters and digits')
  }
  if (reservedAttributes.has(name)) throw invalidOption(option, 'that attribute is written by Posthorn itself')
  if (typeof value !== 'string') throw invalidOption(option, `it is ${describe(value)}; expected a string`)
  checkCharacters(option, value)
}

function checkCharacters(option: string, value: string): void {
  if (CONTROL_CHARACTER.test(value)) throw invalidOption(option, 'it contains a control character')
  // UTF-8 has no place for it: stored, two different ids could become one.
  if (!value.isWellFormed()) throw invalidOption(option, 'it contains half of a surrogate pair')
}
