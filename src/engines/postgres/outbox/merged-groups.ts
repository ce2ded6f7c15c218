import type { AppendGroup, NewMessage } from '../../../engine.ts'

/** A group as it waits in the outbox. */
export interface OutboxRow {
  readonly outboxId: number
  readonly topic: string
  /** JSON. */
  readonly group: string
}

/** Rows that go into the log together. */
export interface MergedGroup {
  readonly group: AppendGroup
  readonly rows: readonly OutboxRow[]
}

export interface MergedGroups {
  readonly merged: readonly MergedGroup[]
  /** Somebody has changed them. */
  readonly unreadable: readonly (OutboxRow & { readonly code: string; readonly problem: string })[]
}

interface Growing {
  readonly group: AppendGroup & { readonly messages: NewMessage[] }
  readonly rows: OutboxRow[]
}

/**
 * Makes one group of those that follow each other within a topic and share their attributes: small transactions would
 * otherwise fill the log with batches of one message.
 */
export function mergeGroups(rows: readonly OutboxRow[]): MergedGroups {
  const merged: Growing[] = []
  const last = new Map<string, Growing>()
  const unreadable: (OutboxRow & { code: string; problem: string })[] = []
  for (const row of rows) {
    const group = parse(row)
    if (group instanceof Error) {
      unreadable.push({ ...row, code: 'POSTHORN_STORAGE_CORRUPT', problem: group.message })
      continue
    }
    const before = last.get(group.topic)
    if (before?.group.shared === group.shared) {
      for (const message of group.messages) before.group.messages.push(message)
      before.rows.push(row)
      continue
    }
    const next: Growing = { group: { ...group, messages: [...group.messages] }, rows: [row] }
    merged.push(next)
    last.set(group.topic, next)
  }
  return { merged, unreadable }
}

/** What becomes part of the log's own text, and what the log reckons with. */
function isMessage(value: unknown): value is NewMessage {
  if (typeof value !== 'object' || value === null) return false
  const { id, json, timeMs, key, deliverAtMs } = value as Partial<Record<keyof NewMessage, unknown>>
  const isWhole = typeof id === 'string' && typeof json === 'string' && Number.isSafeInteger(timeMs)
  const hasTime = deliverAtMs === undefined || Number.isSafeInteger(deliverAtMs)
  return isWhole && hasTime && (key === undefined || typeof key === 'string') && isObject(json)
}

function isObject(json: string): boolean {
  const value: unknown = JSON.parse(json)
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function parse({ topic, group }: OutboxRow): AppendGroup | Error {
  try {
    const { shared, messages } = JSON.parse(group) as AppendGroup
    const isGroup = typeof shared === 'string' && Array.isArray(messages) && messages.length > 0
    if (isGroup && messages.every(isMessage)) return { topic, shared, messages }
    return new Error('it is not a group of messages')
  } catch (error) {
    return error as Error
  }
}
