import type { NewMessage } from '../engine.ts'

/** The attributes that all messages of a topic have in common, as the JSON object that is stored once per batch. */
export function encodeShared(source: string, type: string, dataschema: string | undefined): string {
  return JSON.stringify({ source, type, datacontenttype: 'application/json', dataschema })
}

/** The URI that names a topic's schema in a given version. */
export function schemaUri(topic: string, version: number | string): string {
  return `urn:posthorn:${topic}:${encodeURIComponent(version)}`
}

export interface MessageParts {
  readonly id: string
  readonly timeMs: number
  readonly time: string
  readonly key: string | undefined
  /** Further attributes as JSON members, each with a comma before it; empty when there are none. */
  readonly extensions: string
  /** The payload as JSON. */
  readonly data: string
}

/**
 * Writes the message's own attributes and its payload as one JSON object. The payload has been through JSON.stringify
 * already, so the rest is put around it as text: stringifying the whole event would copy the payload a second time.
 */
export function encodeMessage(parts: MessageParts, idIsGiven: boolean): NewMessage {
  const { id, timeMs, key } = parts
  // An id of our own making needs no escaping.
  const idJson = idIsGiven ? JSON.stringify(id) : `"${id}"`
  const start = `{"id":${idJson},"time":"${parts.time}"`
  if (key === undefined) return { id, json: `${start}${parts.extensions},"data":${parts.data}}`, timeMs }
  const json = `${start},"subject":${JSON.stringify(key)}${parts.extensions},"data":${parts.data}}`
  return { id, json, timeMs, key }
}

/** Writes times in RFC 3339. Thousands of messages share a millisecond, so the last text is kept. */
export class Timestamps {
  #timeMs = Number.NaN
  #text = ''

  of(timeMs: number): string {
    if (timeMs !== this.#timeMs) {
      this.#timeMs = timeMs
      this.#text = new Date(timeMs).toISOString()
    }
    return this.#text
  }
}

/** Whether a text takes more than `limit` bytes in UTF-8; measures only where its length leaves that open. */
export function exceedsBytes(text: string, limit: number): boolean {
  if (text.length * 3 <= limit) return false
  return text.length > limit || Buffer.byteLength(text) > limit
}
