/**
 * What one process knows of one grant: which of its messages were started, which are finished, and what of that the
 * engine has been told. A message is open, then finished (acknowledged, or an exception), then sent with a settlement,
 * then recorded once the engine has confirmed it.
 *
 * Invariants: `unsent + sending + recorded` is the number of finished messages; at most one settlement of a grant is
 * under way. When the engine rejects it, `restore` makes all of it unsent again. When the lease is lost, the ledger is
 * dead: nothing of it is sent any more, and what still runs finishes without effect.
 */
import type { Grant, SettledException, Settlement, StoredMessage } from '../../engine.ts'
import { ACKED, restoreRanges, takeRanges, wholeRange } from './acked-ranges.ts'

export class GrantLedger {
  readonly grant: Grant
  /** By `Clock.elapsedMs`. */
  readonly arrivedAtMs: number
  /** Index of the first message that was not started. */
  next = 0
  lost = false
  /** The settler has it in its list of ledgers with something to send. */
  listed = false
  /** Finished messages that no settlement holds yet. */
  unsent = 0
  #recorded = 0
  #sending: Settlement | undefined
  #sendingCount = 0
  readonly #marks: Uint8Array
  #firstAcked: number
  #lastAcked = -1
  #exceptions: SettledException[] = []

  constructor(grant: Grant, arrivedAtMs: number) {
    this.grant = grant
    this.arrivedAtMs = arrivedAtMs
    this.#marks = new Uint8Array(grant.messages.length)
    this.#firstAcked = grant.messages.length
  }

  /** Messages that were not started. */
  get waiting(): number {
    return this.grant.messages.length - this.next
  }

  /** The size of one message, on average. */
  get messageBytes(): number {
    return this.grant.bytes / this.grant.messages.length
  }

  /** Finished messages that the engine has not confirmed. */
  get unrecorded(): number {
    return this.unsent + this.#sendingCount
  }

  /** Every message is settled, and the engine has confirmed it. */
  get complete(): boolean {
    return this.#recorded === this.grant.messages.length
  }

  message(index: number): StoredMessage {
    return this.grant.messages[index]!
  }

  ack(index: number): void {
    this.#marks[index] = ACKED
    if (index < this.#firstAcked) this.#firstAcked = index
    if (index > this.#lastAcked) this.#lastAcked = index
    this.unsent++
  }

  except(exception: SettledException): void {
    this.#exceptions.push(exception)
    this.unsent++
  }

  /** Everything finished and unsent, as one settlement. To be followed by `confirm` or `restore`. */
  take(): Settlement {
    const settlement = { lease: this.grant.lease, acked: this.#takeAcked(), exceptions: this.#exceptions }
    this.#sending = settlement
    this.#sendingCount = this.unsent
    this.unsent = 0
    this.#exceptions = []
    this.#firstAcked = this.grant.messages.length
    this.#lastAcked = -1
    return settlement
  }

  /** The engine has recorded what was taken last. */
  confirm(): void {
    this.#recorded += this.#sendingCount
    this.#sendingCount = 0
    this.#sending = undefined
  }

  /** The engine has recorded nothing of what was taken last. */
  restore(): void {
    if (this.#sending === undefined) return
    const { first, last } = restoreRanges(this.grant.messages, this.#marks, this.#sending.acked)
    this.#firstAcked = Math.min(this.#firstAcked, first)
    this.#lastAcked = Math.max(this.#lastAcked, last)
    this.#exceptions = [...this.#sending.exceptions, ...this.#exceptions]
    this.unsent += this.#sendingCount
    this.#sendingCount = 0
    this.#sending = undefined
  }

  #takeAcked(): readonly number[] {
    const { messages } = this.grant
    const allAtOnce = this.unsent === messages.length && this.#exceptions.length === 0
    const whole = allAtOnce ? wholeRange(messages) : undefined
    return whole ?? takeRanges(messages, this.#marks, this.#firstAcked, this.#lastAcked)
  }
}
