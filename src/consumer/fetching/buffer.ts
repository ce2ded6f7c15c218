/**
 * Messages that were granted and not started, in the order in which their grants came. Suspects (isolated grants) wait
 * apart from the others.
 *
 * Invariants: `count` and `bytes` are the number and the size of the ordinary messages that wait, and `ledgers` holds no
 * exhausted or lost ledger.
 * Ordinary messages are handed out only while no suspect waits or is exclusive; a suspect only when nothing runs.
 * From then on it is exclusive, until `endExclusive`: it is settled for good, or its lease is lost and its handler
 * has ended. So a process that dies while a suspect runs, or before its settlement is recorded, dies with it alone.
 */
import type { GrantLedger } from '../settlement/grant-ledger.ts'

// A batch of many large messages would otherwise be limited by their number alone.
const BYTES_MAX = 16 * 1024 * 1024

export class GrantBuffer {
  /** Ordinary messages that wait. */
  count = 0
  /** Their size in the store. */
  #bytes = 0
  #ordinary: GrantLedger[] = []
  #suspects: GrantLedger[] = []
  #exclusive: GrantLedger | undefined

  add(ledger: GrantLedger): void {
    if (ledger.grant.isolated) {
      this.#suspects.push(ledger)
      return
    }
    this.#ordinary.push(ledger)
    this.count += ledger.waiting
    this.#bytes += ledger.waiting * ledger.messageBytes
  }

  /** Whether ordinary messages have to wait because of a suspect. */
  get held(): boolean {
    return this.#exclusive !== undefined || this.#suspects.length > 0
  }

  get empty(): boolean {
    return this.count === 0 && this.#suspects.length === 0
  }

  /** As many bytes wait as may: what is there is to be started before more is fetched. */
  get full(): boolean {
    return this.#bytes >= BYTES_MAX
  }

  /** When the oldest ordinary message that waits was granted, by `Clock.elapsedMs`. Undefined when there is none. */
  get oldestArrivedAtMs(): number | undefined {
    return this.#ordinary[0]?.arrivedAtMs
  }

  /** The ledger of the next message to start, whose `next` now points behind it. */
  take(): GrantLedger | undefined {
    const ledger = this.#ordinary[0]
    if (ledger === undefined) return undefined
    this.#countOut(1, ledger)
    ledger.next++
    if (ledger.next === ledger.grant.messages.length) this.#ordinary.shift()
    return ledger
  }

  /** The next suspect, which becomes exclusive, when it may run beside `running` others. */
  takeSuspect(running: number): GrantLedger | undefined {
    if (running > 0 || this.#exclusive !== undefined) return undefined
    const ledger = this.#suspects.shift()
    if (ledger === undefined) return undefined
    ledger.next++
    this.#exclusive = ledger
    return ledger
  }

  /** Lets others start again, if `ledger` was what they waited for. Says whether it was. */
  endExclusive(ledger: GrantLedger): boolean {
    if (this.#exclusive !== ledger) return false
    this.#exclusive = undefined
    return true
  }

  drop(ledger: GrantLedger): void {
    if (this.#ordinary.includes(ledger)) this.#countOut(ledger.waiting, ledger)
    this.#ordinary = this.#ordinary.filter((other) => other !== ledger)
    this.#suspects = this.#suspects.filter((other) => other !== ledger)
  }

  /** Empties the buffer and returns what was in it. */
  drain(): readonly GrantLedger[] {
    const ledgers = [...this.#ordinary, ...this.#suspects]
    this.#ordinary = []
    this.#suspects = []
    this.count = 0
    this.#bytes = 0
    return ledgers
  }

  #countOut(messages: number, ledger: GrantLedger): void {
    this.count -= messages
    // Averages leave fractions behind.
    this.#bytes = this.count === 0 ? 0 : this.#bytes - messages * ledger.messageBytes
  }
}
