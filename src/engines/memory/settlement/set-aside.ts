import { firstPlace } from '../../../collections/first-place.ts'
import type { LeaseId } from '../../../engine.ts'
import type { History } from '../delivery/leases.ts'
import type { MessagePlace } from '../subscription.ts'

/**
 * What a row waits for: a time of its own (its next attempt, or a limit); its turn in the chain of its key; or nothing
 * but to be granted, since its turn has come.
 */
export type Wait =
  | { readonly for: 'time'; readonly dueAtMs: number }
  | { readonly for: 'turn' }
  | { readonly for: 'grant'; readonly dueAtMs: number }

/** As operators see it while nobody holds it. */
export type RowStatus = 'retrying' | 'parked' | 'returned'

/** A message that was set aside, from then on until it is settled for good: while it is leased, too. */
export interface Row extends MessagePlace {
  readonly key: string | undefined
  history: History
  /** It stays as it was while the row is leased, for when the row comes back. */
  wait: Wait
  status: RowStatus
  isLeased: boolean
  /** The lease of the attempt that failed last, until the next one begins. */
  failedUnder: LeaseId | undefined
}

/**
 * The messages of a subscription that wait outside of the log. Each row is in `#all`, and in the chain of its key if it
 * has one, in offset order, from `add` to `remove`. While it is not leased and has a time, it is in `#timed`, too, in
 * the order in which rows are due.
 */
export class SetAside {
  readonly #all = new Set<Row>()
  readonly #chains = new Map<number, Map<string, Row[]>>()
  #timed: Row[] = []

  /** The leased ones too. */
  get size(): number {
    return this.#all.size
  }

  [Symbol.iterator](): Iterator<Row> {
    return this.#all.values()
  }

  count(status: RowStatus): number {
    let total = 0
    for (const row of this.#all) if (!row.isLeased && row.status === status) total++
    return total
  }

  /** The row of a message that failed under this lease, and has waited ever since. */
  failedUnder(lease: LeaseId, offset: number): Row | undefined {
    for (const row of this.#all) if (row.failedUnder === lease && row.offset === offset) return row
    return undefined
  }

  /** What has fallen due and is not leased, in the order in which it did. */
  due(nowMs: number): Row[] {
    const end = this.#timed.findIndex((row) => dueAtMs(row) > nowMs)
    return end === -1 ? [...this.#timed] : this.#timed.slice(0, end)
  }

  /** When the next row that is not due yet will be. */
  nextDueMs(nowMs: number): number | undefined {
    const next = this.#timed.find((row) => dueAtMs(row) > nowMs)
    return next && dueAtMs(next)
  }

  /** In offset order. */
  chain(partition: number, key: string): readonly Row[] {
    return this.#chains.get(partition)?.get(key) ?? []
  }

  /** The chains of a partition by their keys. */
  chains(partition: number): ReadonlyMap<string, readonly Row[]> {
    return this.#chains.get(partition) ?? new Map()
  }

  /** A new row, which waits. */
  add(row: Row): void {
    this.#all.add(row)
    if (row.key !== undefined) this.#join(row, row.key)
    this.#enlist(row)
  }

  /** The row waits for something else, and nobody holds it any more. */
  wait(row: Row, wait: Wait, status: RowStatus): void {
    this.#delist(row)
    row.wait = wait
    row.status = status
    row.isLeased = false
    this.#enlist(row)
  }

  lease(row: Row): void {
    this.#delist(row)
    row.isLeased = true
    row.failedUnder = undefined
  }

  remove(row: Row): void {
    this.#all.delete(row)
    this.#delist(row)
    if (row.key !== undefined) this.#leave(row, row.key)
  }

  clear(): void {
    this.#all.clear()
    this.#chains.clear()
    this.#timed = []
  }

  #join(row: Row, key: string): void {
    const chains = this.#chains.get(row.partition) ?? new Map<string, Row[]>()
    this.#chains.set(row.partition, chains)
    const chain = chains.get(key)
    if (!chain) chains.set(key, [row])
    else
      chain.splice(
        firstPlace(chain, (other) => other.offset > row.offset),
        0,
        row,
      )
  }

  #leave(row: Row, key: string): void {
    const chains = this.#chains.get(row.partition)
    const chain = chains?.get(key)
    const place = chain?.indexOf(row) ?? -1
    if (!chain || place === -1) return
    chain.splice(place, 1)
    if (chain.length === 0) chains?.delete(key)
  }

  #enlist(row: Row): void {
    if (row.wait.for === 'turn') return
    const place = firstPlace(this.#timed, (other) => dueAtMs(other) > dueAtMs(row))
    this.#timed.splice(place, 0, row)
  }

  #delist(row: Row): void {
    if (row.isLeased || row.wait.for === 'turn') return
    const from = firstPlace(this.#timed, (other) => dueAtMs(other) >= dueAtMs(row))
    const place = this.#timed.indexOf(row, from)
    if (place !== -1) this.#timed.splice(place, 1)
  }
}

export function dueAtMs({ wait }: Row): number {
  return wait.for === 'turn' ? Number.POSITIVE_INFINITY : wait.dueAtMs
}
