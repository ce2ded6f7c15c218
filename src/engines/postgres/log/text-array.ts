import { Buffer } from 'node:buffer'

const TEXT = 25
const HEADER_BYTES = 20
const LENGTH_BYTES = 4

/**
 * A `text[]` in Postgres's binary form. The driver writes an array of strings as text, with a backslash before each of the
 * quotes that JSON is full of, which costs more than all else about storing a batch.
 */
export function textArray(texts: readonly string[]): Buffer {
  const bytes = texts.map((text) => Buffer.byteLength(text))
  const total = bytes.reduce((sum, length) => sum + LENGTH_BYTES + length, HEADER_BYTES)
  const buffer = Buffer.allocUnsafe(total)
  // One dimension, no nulls, the type of the elements, how many, and the number of the first.
  let place = HEADER_BYTES
  for (const [index, value] of [1, 0, TEXT, texts.length, 1].entries()) buffer.writeInt32BE(value, index * LENGTH_BYTES)
  for (const [index, text] of texts.entries()) {
    place = buffer.writeInt32BE(bytes[index]!, place)
    place += buffer.write(text, place)
  }
  return buffer
}
