import { PosthornError } from '../errors.ts'

/** A value as JSON, or in `problem` why it has no such form. */
export type Serialization = { readonly json: string } | { readonly problem: string; readonly cause?: unknown }

/**
 * The JSON text of a payload. Throws POSTHORN_UNSERIALIZABLE_MESSAGE for whatever JSON has no room for, also where
 * `JSON.stringify` would quietly leave it out or write something else: functions, symbols, NaN, a Map, a promise.
 * Properties that are `undefined` are left out, as everywhere in JSON.
 */
export function serialize(topic: string, payload: unknown): string {
  const result = trySerialize(payload, 'the payload', 'data')
  if ('json' in result) return result.json
  const { problem, cause } = result
  throw new PosthornError('POSTHORN_UNSERIALIZABLE_MESSAGE', { topic, problem }, cause === undefined ? {} : { cause })
}

/** As `serialize`, for a value that is called `what` where it is wrong as a whole, and `path` where a part of it is. */
export function trySerialize(value: unknown, what: string, path: string): Serialization {
  try {
    const json = JSON.stringify(value)
    if (json === undefined) return { problem: `${what} is ${typeof value}` }
    const problem = findLoss(value, path)
    return problem === undefined ? { json } : { problem }
  } catch (cause) {
    return { problem: firstLine(cause), cause }
  }
}

// V8 draws the whole circle of a cyclic structure over several lines; the first one says what is wrong.
function firstLine(cause: unknown): string {
  if (!(cause instanceof Error)) return 'its toJSON() threw'
  if (cause instanceof RangeError) return 'it is nested too deeply'
  return cause.message.split('\n', 1)[0]!.replace(/\.$/, '')
}

/** Says what of `value` JSON cannot carry. Runs after JSON.stringify, which has ruled out cycles. */
function findLoss(value: unknown, path: string): string | undefined {
  switch (typeof value) {
    case 'object':
      return value === null ? undefined : findLossInside(value as Record<string, unknown>, path)
    case 'number':
      return Number.isFinite(value) ? undefined : `${path} is ${value}`
    case 'function':
    case 'symbol':
      return `${path} is a ${typeof value}`
    default:
      return undefined
  }
}

function findLossInside(value: Record<string, unknown>, path: string): string | undefined {
  if (typeof value.toJSON === 'function') return undefined
  let empty = true
  for (const name in value) {
    empty = false
    const part = value[name]
    // Strings are most of what there is, and the path is text that is only needed when something is wrong.
    if (typeof part === 'string') continue
    if (findLoss(part, '') !== undefined && Object.hasOwn(value, name)) return findLoss(part, `${path}.${name}`)
  }
  return empty ? findEmptiedObject(value, path) : undefined
}

const writtenInFull = new Set(['Object', 'Array', 'String', 'Number', 'Boolean'])

/** A Map, Set, Error, promise or the like has no enumerable properties, so that JSON would say `{}`. */
function findEmptiedObject(value: object, path: string): string | undefined {
  const tag = Object.prototype.toString.call(value).slice(8, -1)
  return writtenInFull.has(tag) ? undefined : `${path} is a ${tag}, which would be written as {}`
}
