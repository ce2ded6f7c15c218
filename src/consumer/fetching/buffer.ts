/**
 * Messages that were granted and not started, in the order in which their grants came. Suspects (isolated grants) wait
 * apart from the others.
 *
 * Invariants: `count` and `#bytes` are the number and the size of the ordinary messages that wait. A stretch is a part
 * of a ledger that waits as a whole; none is empty or of a lost ledger. Messages that were cancelled are not counted
 * from then on, and passed over when their turn comes.
 */
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { Intake, Item } from './supply.ts'
import { Suspects } from './suspects.ts'

// A batch of many large messages would otherwise be limited by their number alone.
export const BUFFERED_BYTES_MAX = 16 * 1024 * 1024

interface Stretch {
  readonly ledger: GrantLedger
  next: number
  readonly end: number
}

export class GrantBuffer implements Intake {
  readonly looksFurther = false
  /** Ordinary messages that wait. */
  count = 0
  readonly blocked = 0
  readonly leaving = false
  /** Their size in the store. */
  #bytes = 0
  #stretches: Stretch[] = []
  readonly #suspects = new Suspects()

  add(ledger: GrantLedger): void {
    if (ledger.grant.isolated) this.#suspects.add({ ledger, index: 0 })
    else this.#stretches.push(this.#countIn({ ledger, next: 0, end: ledger.grant.messages.length }))
  }

  get held(): boolean {
    return this.#suspects.held
  }

  get ahead(): number {
    return this.count
  }

  get full(): boolean {
    return this.#bytes >= BUFFERED_BYTES_MAX
  }

  get oldestArrivedAtMs(): number | undefined {
    return this.count === 0 ? undefined : this.#stretches[0]?.ledger.arrivedAtMs
  }

  take(): Item | undefined {
    for (;;) {
      const stretch = this.#stretches[0]
      if (stretch === undefined) return undefined
      const { ledger } = stretch
      const index = stretch.next++
      if (stretch.next === stretch.end) this.#stretches.shift()
      if (!ledger.isOpen(index)) continue
      this.#countOut(1, ledger)
      return { ledger, index }
    }
  }

  takeSuspect(running: number): Item | undefined {
    return this.#suspects.take(running)
  }

  prepare(): void {}

  setDown(): void {}

  putBack({ ledger, index }: Item, place: 'first' | 'last'): void {
    if (this.#suspects.putBack(ledger)) return
    const stretch = this.#countIn({ ledger, next: index, end: index + 1 })
    if (place === 'first') this.#stretches.unshift(stretch)
    else this.#stretches.push(stretch)
  }

  endExclusive(ledger: GrantLedger): boolean {
    return this.#suspects.endExclusive(ledger)
  }

  drop(ledger: GrantLedger): void {
    this.#suspects.drop(ledger)
    for (const stretch of this.#stretches) {
      if (stretch.ledger === ledger) this.#countOut(openItems(stretch).length, ledger)
    }
    this.#stretches = this.#stretches.filter((stretch) => stretch.ledger !== ledger)
  }

  cancel({ ledger, index }: Item): void {
    if (this.#suspects.drop(ledger)) return
    const waits = this.#stretches.some((one) => one.ledger === ledger && one.next <= index && index < one.end)
    if (waits) this.#countOut(1, ledger)
  }

  // Where there is no order, partitions belong to nobody.
  withdraw(): readonly Item[] {
    return []
  }

  drain(): readonly Item[] {
    const items = [...this.#stretches.flatMap(openItems), ...this.#suspects.drain()]
    this.#stretches = []
    this.count = 0
    this.#bytes = 0
    return items
  }

  #countIn(stretch: Stretch): Stretch {
    const messages = stretch.end - stretch.next
    this.count += messages
    this.#bytes += messages * stretch.ledger.messageBytes
    return stretch
  }

  #countOut(messages: number, ledger: GrantLedger): void {
    this.count -= messages
    // Averages leave fractions behind.
    this.#bytes = this.count === 0 ? 0 : this.#bytes - messages * ledger.messageBytes
  }
}

function openItems({ ledger, next, end }: Stretch): Item[] {
  const items: Item[] = []
  for (let index = next; index < end; index++) {
    if (ledger.isOpen(index)) items.push({ ledger, index })
  }
  return items
}
