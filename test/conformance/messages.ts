import type { AppendGroup, Failure, Grant, NewMessage } from '../../src/engine.ts'
import { partitionOfKey } from '../../src/message/partition.ts'

export const TOPIC = 'events'
export const SUBSCRIPTION = 'mail'

export interface PublishOptions {
  readonly topic?: string
  readonly key?: string
  /** Given by the publisher: stored once within the window. Only for a single message. */
  readonly id?: string
  readonly deliverAtMs?: number
  readonly expiresAtMs?: number
  readonly priority?: 'high' | 'low'
}

let messagesMade = 0

/** A message as the publisher encodes it: its own attributes, and its data, as one JSON object. */
export function newMessage(data: unknown, timeMs: number, options: PublishOptions = {}): NewMessage {
  messagesMade++
  const { id = `message-${messagesMade}`, key, deliverAtMs, expiresAtMs, priority } = options
  const json = JSON.stringify({
    id,
    time: new Date(timeMs).toISOString(),
    subject: key,
    expirytime: expiresAtMs === undefined ? undefined : new Date(expiresAtMs).toISOString(),
    data,
  })
  return {
    id,
    json,
    timeMs,
    ...(key !== undefined && { key }),
    ...(options.id !== undefined && { deduplicate: true as const }),
    ...(deliverAtMs !== undefined && { deliverAtMs }),
    ...(priority !== undefined && { priority }),
  }
}

/** A key whose messages go to this partition of so many. */
export function keyIn(partition: number, partitions: number): string {
  for (let number = 0; ; number++) {
    if (partitionOfKey(`key-${number}`, partitions) === partition) return `key-${number}`
  }
}

export function newGroup(messages: readonly NewMessage[], topic: string = TOPIC): AppendGroup {
  const shared = JSON.stringify({ source: '/conformance', type: topic, datacontenttype: 'application/json' })
  return { topic, shared, messages }
}

/** What the grants hold, in the order in which they came. */
export function dataOf(grants: readonly Grant[]): unknown[] {
  return grants.flatMap((grant) => grant.messages.map((message) => message.event.data))
}

export function offsetsOf(grants: readonly Grant[]): number[] {
  return grants.flatMap((grant) => grant.messages.map(({ offset }) => offset))
}

/** Whole numbers from 0 up to, not including, `count`. */
export function numbersTo(count: number): number[] {
  return Array.from({ length: count }, (_, number) => number)
}

export function failure(attempt: number, atMs: number, message = 'no route to host'): Failure {
  return { attempt, atMs, name: 'Error', message }
}
