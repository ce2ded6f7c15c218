import type { StoredEvent, StoredMessage } from '../engine.ts'

/** The attributes that the messages of a batch have in common, stored once beside them. */
interface SharedAttributes {
  readonly source: string
  readonly type: string
  readonly datacontenttype?: string
  readonly dataschema?: string
}

/**
 * Turns a stored batch (the shared attributes, and a JSON array of each message's own) into messages with rising
 * offsets. The events are deeply frozen because every subscription of the process is handed the same objects.
 * Throws a SyntaxError when the text is not JSON.
 */
export function decodeBatch(sharedJson: string, dataJson: string, baseOffset: number): StoredMessage[] {
  const shared = JSON.parse(sharedJson) as SharedAttributes
  const own = JSON.parse(dataJson) as Record<string, unknown>[]
  const messages: StoredMessage[] = new Array(own.length)
  for (let index = 0; index < own.length; index++) {
    messages[index] = storedMessage(completeEvent(own[index]!, shared), baseOffset + index)
  }
  return messages
}

/** Turns one message, kept by itself, into an event. */
export function decodeEvent(sharedJson: string, ownJson: string): StoredEvent {
  return completeEvent(JSON.parse(ownJson) as Record<string, unknown>, JSON.parse(sharedJson) as SharedAttributes)
}

/** Turns the JSON text of a complete event, kept by itself, into that event. */
export function parseEvent(json: string): StoredEvent {
  const event = JSON.parse(json) as StoredEvent
  deepFreeze(event)
  return event
}

export function storedMessage(event: StoredEvent, offset: number): StoredMessage {
  if (event.expirytime === undefined) return { offset, event }
  return { offset, event, expiresAtMs: Date.parse(event.expirytime as string) }
}

// Assigns rather than spreads: the parsed object is ours alone, and this is the hottest loop of a consumer.
function completeEvent(own: Record<string, unknown>, shared: SharedAttributes): StoredEvent {
  own.specversion = '1.0'
  own.source = shared.source
  own.type = shared.type
  if (shared.datacontenttype !== undefined) own.datacontenttype = shared.datacontenttype
  if (shared.dataschema !== undefined) own.dataschema = shared.dataschema
  deepFreeze(own.data)
  return Object.freeze(own) as unknown as StoredEvent
}

function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  for (const name in value) {
    const part = (value as Record<string, unknown>)[name]
    if (typeof part === 'object' && part !== null) deepFreeze(part)
  }
  Object.freeze(value)
}
