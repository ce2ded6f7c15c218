/**
 * What was set aside of one key of an ordered subscription: the rows of its chain, in offset order.
 *
 * A row waits for its turn until the one before it is settled for good; then the first `PROMOTED_MAX` that wait for their
 * turn are let go together, up to one that has a time of its own. When one of those fails, those behind it that nobody
 * holds wait for their turn again; those that its owner holds, the owner sets aside itself. A dead letter that blocks its
 * key stands before the whole chain.
 *
 * Invariant: a row is granted only when no row before it in its chain waits, and one with a time of its own only when
 * there is none before it at all; whatever order releases, lost sessions and redriven dead letters bring them back in.
 */
import type { KeyChain } from '../../../engine.ts'
import type { DeadLetters } from '../settlement/dead-letters.ts'
import type { Row, SetAside } from '../settlement/set-aside.ts'

/** Enough for a round trip to be worth it, and few enough to be held again when the first of them fails. */
const PROMOTED_MAX = 64

export class Chains {
  readonly #rows: SetAside
  readonly #deadLetters: DeadLetters

  constructor(rows: SetAside, deadLetters: DeadLetters) {
    this.#rows = rows
    this.#deadLetters = deadLetters
  }

  /** Whether a message of the key would have to wait for something that was set aside before it. */
  hasPredecessor(partition: number, key: string, offset: number): boolean {
    if (this.#deadLetters.blocks(partition, key)) return true
    const [first] = this.#rows.chain(partition, key)
    return first !== undefined && first.offset < offset
  }

  /** Whether the row has to wait for its turn again, when it comes back from somebody who held it. */
  waitsAgain(row: Row): boolean {
    const { partition, key } = row
    if (key === undefined || row.wait.for !== 'grant') return false
    if (this.#deadLetters.blocks(partition, key)) return true
    for (const other of this.#rows.chain(partition, key)) {
      if (other === row) return false
      if (!other.isLeased && other.wait.for !== 'grant') return true
    }
    return false
  }

  /** Whether nothing in the row's chain keeps it from being granted. */
  isFree(row: Row): boolean {
    const { partition, key } = row
    if (key === undefined) return true
    if (this.#deadLetters.blocks(partition, key)) return false
    for (const other of this.#rows.chain(partition, key)) {
      if (other === row) return true
      if (!other.isLeased || row.wait.for === 'time') return false
    }
    return true
  }

  /** Lets the first rows of the chain go, as far as they wait for nothing but their turn. */
  advance(partition: number, key: string | undefined, nowMs: number): void {
    if (key === undefined || this.#deadLetters.blocks(partition, key)) return
    const promoted: Row[] = []
    for (const row of this.#rows.chain(partition, key)) {
      if (row.isLeased || row.wait.for !== 'turn' || promoted.length === PROMOTED_MAX) break
      promoted.push(row)
    }
    for (const row of promoted) this.#rows.wait(row, { for: 'grant', dueAtMs: nowMs }, 'retrying')
  }

  /** A message of the key, at `offset`, is to come first: what is behind it waits for its turn. */
  holdBehind(partition: number, key: string | undefined, offset: number): void {
    if (key === undefined) return
    for (const row of this.#rows.chain(partition, key)) {
      const isHeld = row.offset > offset && !row.isLeased && row.wait.for === 'grant'
      if (isHeld) this.#rows.wait(row, { for: 'turn' }, 'parked')
    }
  }

  /** The partition has a new owner, or a position before its chains: what waited for an earlier owner's word is due. */
  advanceAll(partition: number, nowMs: number): void {
    for (const key of [...this.#rows.chains(partition).keys()]) this.advance(partition, key, nowMs)
  }

  /** There is no order any more: every row is due that waited for its turn. */
  dissolve(nowMs: number): void {
    for (const row of this.#rows) {
      const waits = !row.isLeased && row.wait.for === 'turn'
      if (waits) this.#rows.wait(row, { for: 'grant', dueAtMs: nowMs }, 'retrying')
    }
  }

  /** What a new owner has to know: the keys of which something was set aside, or that are blocked. */
  ofPartition(partition: number): KeyChain[] {
    const chains = new Map<string, KeyChain>()
    for (const [key, rows] of this.#rows.chains(partition)) {
      chains.set(key, { key, firstOffset: rows[0]!.offset, lastOffset: rows.at(-1)!.offset })
    }
    for (const { key, offset } of this.#deadLetters.blockersOf(partition)) {
      const { firstOffset, lastOffset } = chains.get(key) ?? { firstOffset: offset, lastOffset: offset }
      chains.set(key, { key, firstOffset: Math.min(firstOffset, offset), lastOffset: Math.max(lastOffset, offset) })
    }
    return [...chains.values()]
  }
}
