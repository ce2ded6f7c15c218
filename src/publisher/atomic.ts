import type { AppendReceipt, NewMessage } from '../engine.ts'
import type { Lane, Portion } from './lane.ts'
import type { MessageOptions } from './publish-options.ts'
import type { Publishable } from './publishable.ts'
import { type Published, publishedFrom } from './published.ts'

/** A message on its way to `publishAll`, made by `message()`: a payload, and the topic or queue that it is for. */
export interface Publication {
  readonly definition: Publishable
  readonly payload: unknown
  readonly options: MessageOptions | undefined
}

/** Messages of one lane that are stored together. */
export type AtomicGroup = Pick<Portion, 'lane' | 'messages'>

interface Place {
  readonly group: number
  readonly message: NewMessage
  /** Of the message within its group. */
  readonly index: number
}

/**
 * Sorts messages of any topics into groups. Messages of one topic stay in order even when they come from two
 * definitions of it: what follows a message of another definition begins a group of its own.
 */
export class AtomicGroups {
  readonly groups: AtomicGroup[] = []
  readonly #places: Place[] = []
  readonly #lastByTopic = new Map<string, number>()

  add(lane: Lane, message: NewMessage): void {
    const group = this.#groupFor(lane)
    const { messages } = this.groups[group]!
    this.#places.push({ group, message, index: messages.length })
    messages.push(message)
  }

  /** What became of the messages, in the order in which they were added. */
  published(receipts: readonly (readonly AppendReceipt[])[]): readonly Published[] {
    return this.#places.map(({ group, message, index }) => publishedFrom(message.id, receipts[group]![index]!))
  }

  #groupFor(lane: Lane): number {
    const { name } = lane.definition
    const last = this.#lastByTopic.get(name)
    if (last !== undefined && this.groups[last]!.lane === lane) return last
    this.#lastByTopic.set(name, this.groups.length)
    return this.groups.push({ lane, messages: [] }) - 1
  }
}
