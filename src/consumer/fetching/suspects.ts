/**
 * Messages that are to be run alone (isolated grants), until they are recorded.
 *
 * Ordinary messages are handed out only while no suspect waits or is exclusive; a suspect only when nothing runs.
 * From then on it is exclusive, until `endExclusive`: it is settled for good, or its lease is lost and its handler
 * has ended. So a process that dies while a suspect runs, or before its settlement is recorded, dies with it alone.
 */
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { Item } from './supply.ts'

export class Suspects {
  #waiting: Item[] = []
  #exclusive: Item | undefined

  add(item: Item): void {
    this.#waiting.push(item)
  }

  get held(): boolean {
    return this.#exclusive !== undefined || this.#waiting.length > 0
  }

  take(running: number): Item | undefined {
    if (running > 0 || this.#exclusive !== undefined) return undefined
    this.#exclusive = this.#waiting.shift()
    return this.#exclusive
  }

  /** Lets it wait again, if it is the exclusive one. Says whether it was. */
  putBack(ledger: GrantLedger): boolean {
    if (this.#exclusive?.ledger !== ledger) return false
    this.#waiting.unshift(this.#exclusive)
    this.#exclusive = undefined
    return true
  }

  /** Lets others start again, if `ledger` was what they waited for. Says whether it was. */
  endExclusive(ledger: GrantLedger): boolean {
    if (this.#exclusive?.ledger !== ledger) return false
    this.#exclusive = undefined
    return true
  }

  /** Takes it out if it waits. Says whether it did. */
  drop(ledger: GrantLedger): boolean {
    const before = this.#waiting.length
    this.#waiting = this.#waiting.filter((item) => item.ledger !== ledger)
    return this.#waiting.length < before
  }

  takeWhere(test: (item: Item) => boolean): readonly Item[] {
    const taken = this.#waiting.filter(test)
    this.#waiting = this.#waiting.filter((item) => !taken.includes(item))
    return taken
  }

  drain(): readonly Item[] {
    return this.#waiting.splice(0)
  }
}
