/**
 * The messages of one definition that wait in this process to be stored, in the order of their publishing.
 *
 * States:
 * - `unready`: nobody has made sure yet that the topic exists. The first message starts that.
 * - `readying`: the topic is being made; messages queue up. On failure they are all rejected, back to `unready`.
 * - `open`: messages go into the next commit.
 * - `holding`: the store refused some because the backlog is full, and the topic is to wait. They stand at the head
 *   again until the timer fires; then `open`.
 *
 * Invariant: `messages[i]` belongs to `waiters[i]`, and `bytes` is the sum of the lengths of what is queued.
 */
import type { AppendReceipt, NewMessage } from '../engine.ts'
import type { Timer } from '../environment/index.ts'
import type { Publishable } from './publishable.ts'

/** Is told what became of a message. One that publishes many may wait for all of them with one object. */
export interface Waiter {
  stored(id: string, receipt: AppendReceipt): void
  failed(error: unknown): void
}

/** What one commit takes from a lane. */
export interface Portion {
  readonly lane: Lane
  readonly messages: NewMessage[]
  readonly waiters: Waiter[]
  readonly bytes: number
}

export class Lane {
  readonly definition: Publishable
  /** The attributes that all of its messages share, as JSON. */
  readonly shared: string
  readonly maxMessageBytes: number
  state: 'unready' | 'readying' | 'open' | 'holding' = 'unready'
  /** Commits under way that hold messages of this lane. */
  underWay = 0
  /** How often in a row the store has refused its messages. */
  refusals = 0
  holdTimer: Timer | undefined
  /** Bytes of its messages that are queued or under way, counted by the writer. */
  bufferedBytes = 0
  #messages: NewMessage[] = []
  #waiters: Waiter[] = []
  #bytes = 0

  constructor(definition: Publishable, shared: string, maxMessageBytes: number) {
    this.definition = definition
    this.shared = shared
    this.maxMessageBytes = maxMessageBytes
  }

  get size(): number {
    return this.#messages.length
  }

  /** May give messages to a commit now. A topic that waits has one commit at a time, or its order could change. */
  get sendable(): boolean {
    if (this.state !== 'open' || this.#messages.length === 0) return false
    return this.definition.whenFull === 'reject' || this.underWay === 0
  }

  add(message: NewMessage, waiter: Waiter): void {
    this.#messages.push(message)
    this.#waiters.push(waiter)
    this.#bytes += message.json.length
  }

  /** Takes messages off the head, within the limits; always at least one. */
  take(messagesMax: number, bytesMax: number): Portion {
    const { count, bytes } = this.#measure(messagesMax, bytesMax)
    const all = count === this.#messages.length
    const messages = all ? this.#messages : this.#messages.splice(0, count)
    const waiters = all ? this.#waiters : this.#waiters.splice(0, count)
    if (all) {
      this.#messages = []
      this.#waiters = []
    }
    this.#bytes -= bytes
    return { lane: this, messages, waiters, bytes }
  }

  takeAll(): Portion {
    return this.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
  }

  putBack(portion: Portion): void {
    this.#messages = portion.messages.concat(this.#messages)
    this.#waiters = portion.waiters.concat(this.#waiters)
    this.#bytes += portion.bytes
  }

  #measure(messagesMax: number, bytesMax: number): { count: number; bytes: number } {
    if (this.#messages.length <= messagesMax && this.#bytes <= bytesMax) {
      return { count: this.#messages.length, bytes: this.#bytes }
    }
    const countMax = Math.min(messagesMax, this.#messages.length)
    let bytes = this.#messages[0]!.json.length
    let count = 1
    for (; count < countMax; count++) {
      const next = bytes + this.#messages[count]!.json.length
      if (next > bytesMax) break
      bytes = next
    }
    return { count, bytes }
  }
}
