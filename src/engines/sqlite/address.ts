import { resolve } from 'node:path'
import { PosthornError } from '../../errors.ts'

/** What an `sqlite:` URL says. */
export interface SqliteAddress {
  /** Absolute path of the file, or `:memory:`. */
  readonly file: string
  /** The file refuses to grow beyond this many bytes (`?maxBytes=`); undefined: until the disk is full. */
  readonly maxBytes?: number
}

export const IN_MEMORY = ':memory:'

/** Reads `sqlite:path`, `sqlite:///path`, `sqlite::memory:`, with an optional `?maxBytes=N`. */
export function parseSqliteAddress(url: string): SqliteAddress {
  const [location = '', query = ''] = url.slice(url.indexOf(':') + 1).split('?', 2)
  const path = decodePath(location.startsWith('//') ? location.slice(2) : location, url)
  if (path === '') throw invalidUrl(url, 'it names no file')
  const maxBytes = readMaxBytes(new URLSearchParams(query), url)
  return { file: path === IN_MEMORY ? IN_MEMORY : resolve(path), ...(maxBytes !== undefined && { maxBytes }) }
}

function decodePath(path: string, url: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw invalidUrl(url, 'it holds a percent sign that starts no character')
  }
}

function readMaxBytes(parameters: URLSearchParams, url: string): number | undefined {
  for (const name of parameters.keys()) {
    if (name !== 'maxBytes') throw invalidUrl(url, `it has the parameter ${name}, and only maxBytes is known`)
  }
  const text = parameters.get('maxBytes')
  if (text === null) return undefined
  const bytes = Number(text)
  if (!Number.isSafeInteger(bytes) || bytes < 65_536) {
    throw invalidUrl(url, `maxBytes is ${text}, and must be a whole number from 65536`)
  }
  return bytes
}

function invalidUrl(url: string, problem: string): PosthornError {
  return new PosthornError('POSTHORN_INVALID_OPTION', { option: `url (${url})`, problem })
}
