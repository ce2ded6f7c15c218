import type { AppendReceipt } from '../engine.ts'

/** What became of a published message. */
export interface Published {
  readonly id: string
  /** The id was published before, within the topic's `deduplicateFor`: nothing new was stored. */
  readonly duplicate: boolean
  /** Where it was stored; absent for duplicates, and for messages that are not yet due. */
  readonly partition?: number
  readonly offset?: number
}

export function publishedFrom(id: string, { duplicate, partition, offset }: AppendReceipt): Published {
  if (partition === undefined || offset === undefined) return { id, duplicate }
  return { id, duplicate, partition, offset }
}
