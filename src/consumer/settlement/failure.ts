/**
 * Turns whatever was thrown into a failure record. Anything can be thrown: strings, undefined, objects with getters
 * that throw, revoked proxies. None of them may break the consumer, so every access stands on its own.
 */
import { inspect } from 'node:util'
import type { Failure } from '../../engine.ts'

const NAME_LENGTH_MAX = 200
const CODE_LENGTH_MAX = 200
const MESSAGE_LENGTH_MAX = 2_048
const STACK_LENGTH_MAX = 4_096

/** Texts are cut: names and codes to 200 characters, the message to 2,048, the stack to 4,096. */
export function failureOf(thrown: unknown, attempt: number, atMs: number): Failure {
  const code = codeOf(thrown)
  const stack = textAt(thrown, 'stack')
  return {
    attempt,
    atMs,
    name: cut(textAt(thrown, 'name') ?? kindOf(thrown), NAME_LENGTH_MAX),
    message: cut(textAt(thrown, 'message') ?? describe(thrown), MESSAGE_LENGTH_MAX),
    ...(code === undefined ? {} : { code: cut(code, CODE_LENGTH_MAX) }),
    ...(stack === undefined ? {} : { stack: cut(stack, STACK_LENGTH_MAX) }),
  }
}

function codeOf(thrown: unknown): string | undefined {
  const code = propertyOf(thrown, 'code')
  return typeof code === 'string' || typeof code === 'number' ? String(code) : undefined
}

function textAt(thrown: unknown, property: string): string | undefined {
  const value = propertyOf(thrown, property)
  return typeof value === 'string' ? value : undefined
}

/** A property, also of values that throw when they are asked; undefined for what has none. */
export function propertyOf(thrown: unknown, property: string): unknown {
  if ((typeof thrown !== 'object' && typeof thrown !== 'function') || thrown === null) return undefined
  try {
    return Reflect.get(thrown, property)
  } catch {
    return undefined
  }
}

function kindOf(thrown: unknown): string {
  return thrown === null ? 'null' : typeof thrown
}

function describe(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown
  try {
    return inspect(thrown, { depth: 1, breakLength: Number.POSITIVE_INFINITY, maxStringLength: MESSAGE_LENGTH_MAX })
  } catch {
    return 'A value was thrown that cannot be described.'
  }
}

// Storage takes UTF-8: half a surrogate pair, thrown or made by the cut, would not survive it.
function cut(text: string, lengthMax: number): string {
  return (text.length > lengthMax ? text.slice(0, lengthMax) : text).toWellFormed()
}

/** `instanceof`, also for values whose prototype cannot be asked. */
export function isInstance<T>(value: unknown, type: abstract new (...parameters: never) => T): value is T {
  try {
    return value instanceof type
  } catch {
    return false
  }
}
