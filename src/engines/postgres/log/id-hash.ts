import { Buffer } from 'node:buffer'
import { hash } from 'node:crypto'

const HEX_DIGITS = 32

/**
 * What is stored of a message's id, as a `uuid` of Postgres: 128 bits of its SHA-256. Ids are of any length and hold any
 * characters, of which an index takes 2,700 bytes and a text all but U+0000. Over UTF-16, so that lone surrogates differ.
 */
export function idHash(id: string): string {
  return hash('sha256', Buffer.from(id, 'utf16le'), 'hex').slice(0, HEX_DIGITS)
}
