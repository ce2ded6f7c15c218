/**
 * What one process knows of one grant: which of its messages are finished, and what of that the engine has been told.
 * A message is open, then finished (acknowledged, or an exception), then sent with a settlement, then recorded once the
 * engine has confirmed it. One that the engine settles by itself (cancelled, or committed with a transaction) is
 * recorded at once, and never sent.
 *
 * Invariants: `unsent + sending + recorded` is the number of finished messages; at most one settlement of a grant is
 * under way. When the engine rejects it, `restore` makes all of it unsent again. When the lease is lost, the ledger is
 * dead: nothing of it is sent any more, and what still runs finishes without effect.
 */
import type { Grant, SettledException, Settlement, StoredMessage } from '../../engine.ts'
import type { Witness } from '../fetching/supply.ts'
import { ACKED, OPEN, restoreRanges, SENT, takeRanges, wholeRange } from './acked-ranges.ts'

export class GrantLedger {
  readonly grant: Grant
  /** By `Clock.elapsedMs`. */
  readonly arrivedAtMs: number
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
  #freed: string[] = []
  /** Offsets, about to be acknowledged, of which the engine keeps results of steps. */
  #stepped: number[] = []
  /** Hears of each message that is recorded. Only then the finished ones are listed. */
  readonly #witness: Witness | undefined
  #finished: number[] = []
  #sendingFinished: number[] = []

  /** The number of the pull that brought it. */
  readonly pull: number

  constructor(grant: Grant, arrivedAtMs: number, witness?: Witness, pull = 0) {
    this.grant = grant
    this.pull = pull
    this.arrivedAtMs = arrivedAtMs
    this.#witness = witness
    this.#marks = new Uint8Array(grant.messages.length)
    this.#firstAcked = grant.messages.length
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

  /** Where a message with this offset is; undefined when there is none. */
  indexOf(offset: number): number | undefined {
    const index = this.grant.messages.findIndex((message) => message.offset === offset)
    return index === -1 ? undefined : index
  }

  /** Whether a message has not finished. */
  isOpen(index: number): boolean {
    return this.#marks[index] === OPEN
  }

  ack(index: number): void {
    this.#marks[index] = ACKED
    if (index < this.#firstAcked) this.#firstAcked = index
    if (index > this.#lastAcked) this.#lastAcked = index
    this.#finish(index)
  }

  except(index: number, exception: SettledException): void {
    this.#marks[index] = SENT
    this.#exceptions.push(exception)
    this.#finish(index)
  }

  /** The engine has settled an open message by itself. */
  record(index: number): void {
    this.#marks[index] = SENT
    this.#recorded++
    this.#witness?.recorded({ ledger: this, index })
  }

  /** An open message, about to be acknowledged, has results of steps in the store, which are to go with it. */
  forgetSteps(index: number): void {
    if (this.isOpen(index)) this.#stepped.push(this.message(index).offset)
  }

  /** Names a key whose chain in the store waits for this settlement. */
  free(key: string): void {
    this.#freed.push(key)
  }

  /** Everything finished and unsent, as one settlement. To be followed by `confirm` or `restore`. */
  take(): Settlement {
    const settlement = { lease: this.grant.lease, acked: this.#takeAcked(), exceptions: this.#exceptions }
    this.#sending = { ...settlement, ...this.#takeExtras() }
    this.#sendingCount = this.unsent
    this.#sendingFinished = this.#finished
    this.unsent = 0
    this.#exceptions = []
    this.#finished = []
    this.#firstAcked = this.grant.messages.length
    this.#lastAcked = -1
    return this.#sending
  }

  /** The engine has recorded what was taken last. */
  confirm(): void {
    this.#recorded += this.#sendingCount
    this.#sendingCount = 0
    this.#sending = undefined
    if (this.#witness !== undefined) this.#tell(this.#witness)
  }

  /** The engine has recorded nothing of what was taken last. */
  restore(): void {
    if (this.#sending === undefined) return
    const { first, last } = restoreRanges(this.grant.messages, this.#marks, this.#sending.acked)
    this.#firstAcked = Math.min(this.#firstAcked, first)
    this.#lastAcked = Math.max(this.#lastAcked, last)
    this.#exceptions = [...this.#sending.exceptions, ...this.#exceptions]
    this.#freed = [...(this.#sending.freed ?? []), ...this.#freed]
    this.#stepped = [...(this.#sending.stepped ?? []), ...this.#stepped]
    this.#finished = [...this.#sendingFinished, ...this.#finished]
    this.#sendingFinished = []
    this.unsent += this.#sendingCount
    this.#sendingCount = 0
    this.#sending = undefined
  }

  #finish(index: number): void {
    this.unsent++
    if (this.#witness !== undefined) this.#finished.push(index)
  }

  #tell(witness: Witness): void {
    const finished = this.#sendingFinished
    this.#sendingFinished = []
    for (const index of finished) witness.recorded({ ledger: this, index })
  }

  #takeExtras(): Pick<Settlement, 'freed' | 'stepped'> | undefined {
    if (this.#freed.length === 0 && this.#stepped.length === 0) return undefined
    const freed = this.#freed
    const stepped = this.#stepped
    this.#freed = []
    this.#stepped = []
    return { ...(freed.length > 0 && { freed }), ...(stepped.length > 0 && { stepped }) }
  }

  #takeAcked(): readonly number[] {
    const { messages } = this.grant
    const allAtOnce = this.unsent === messages.length && this.#exceptions.length === 0
    const whole = allAtOnce ? wholeRange(messages) : undefined
    return whole ?? takeRanges(messages, this.#marks, this.#firstAcked, this.#lastAcked)
  }
}
