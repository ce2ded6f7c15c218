/**
 * The counters of one subscription's limits, as they are stored, within a transaction that holds their lock.
 *
 * Each change is a new row, which is found from the newest end; the old ones go a stretch at a time. A row that were
 * updated in its place would leave a dead one each time, and while somebody holds a transaction open, every look at the
 * limit would have to pass all of them. Versions rise with the time, so that a counter that was deleted and comes again
 * is found before what is left of it.
 *
 * A counter that is not there stands for a full bucket, or for no places.
 */
import { sessionOf } from '../consumers/source-name.ts'
import type { Transaction } from '../database/statement.ts'
import * as sql from '../sql/limits.ts'

interface CounterRow {
  readonly counter: string
  readonly version: number
  readonly keptFrom: number
  readonly kept: number
  readonly fullAtMs: number | null
  readonly places: string | null
}

type Stored = Omit<CounterRow, 'counter'>

/** Old versions are deleted so many at a time. */
const PRUNED_AT_ONCE = 32
const NOTHING: Stored = { version: -1, keptFrom: -1, kept: 0, fullAtMs: null, places: null }

interface Places {
  readonly counter: string
  readonly bySource: Map<string, number>
}

export class CounterStore {
  readonly #rows: Transaction
  readonly #subscriptionId: number
  readonly #stored: ReadonlyMap<string, Stored>
  readonly #living: ReadonlySet<string>
  readonly #fullAtMs = new Map<string, number>()
  readonly #places = new Map<string, Map<string, number>>()
  readonly #changed = new Set<string>()

  private constructor(
    rows: Transaction,
    subscriptionId: number,
    found: readonly CounterRow[],
    living: readonly string[],
  ) {
    this.#rows = rows
    this.#subscriptionId = subscriptionId
    this.#stored = new Map(found.map((row) => [row.counter, row]))
    this.#living = new Set(living)
    for (const { counter, fullAtMs, places } of found) {
      if (fullAtMs !== null) this.#fullAtMs.set(counter, fullAtMs)
      if (places !== null) this.#places.set(counter, this.#ofLiving({ counter, bySource: parsePlaces(places) }))
    }
  }

  /** Locks the subscription's counters until the transaction ends, and reads these. */
  static async open(rows: Transaction, subscriptionId: number, counters: readonly string[]): Promise<CounterStore> {
    // Sent together: what follows the first is carried out, and looks, when that has the lock.
    const [, found, living] = await Promise.all([
      rows.rows(sql.counters.lock, subscriptionId),
      rows.rows<CounterRow>(sql.counters.read, subscriptionId, [...new Set(counters)]),
      rows.rows<{ sessionId: string }>(sql.counters.living),
    ])
    const sessions = living.map(({ sessionId }) => sessionId)
    return new CounterStore(rows, subscriptionId, found, sessions)
  }

  /** Whether the session of the source is stored: of one that is lost, nothing counts any more. */
  isAlive(source: string): boolean {
    return this.#living.has(sessionOf(source))
  }

  fullAtMs(counter: string): number | undefined {
    return this.#fullAtMs.get(counter)
  }

  setFullAtMs(counter: string, fullAtMs: number): void {
    this.#fullAtMs.set(counter, fullAtMs)
    this.#changed.add(counter)
  }

  /** How many places are taken, by sources of living sessions. */
  taken(counter: string): number {
    let taken = 0
    for (const held of this.#places.get(counter)?.values() ?? []) taken += held
    return taken
  }

  held(counter: string, source: string): number {
    return this.#places.get(counter)?.get(source) ?? 0
  }

  /** The source holds `step` places more. */
  hold(counter: string, source: string, step: number): void {
    const bySource = this.#places.get(counter) ?? new Map<string, number>()
    const held = (bySource.get(source) ?? 0) + step
    if (held > 0) bySource.set(source, held)
    else bySource.delete(source)
    this.#places.set(counter, bySource)
    this.#changed.add(counter)
  }

  /** Stores what was changed. */
  save(nowMs: number): void {
    const changed = [...this.#changed]
    const kept = changed.filter((counter) => this.#fullAtMs.has(counter) || this.taken(counter) > 0)
    const written = kept.map((counter) => this.#next(counter, nowMs))
    const replaced = written.filter((row) => row.kept === 1).map(({ counter }) => counter)
    const gone = [...replaced, ...changed.filter((counter) => !kept.includes(counter))]
    this.#prune(gone)
    this.#write(written)
  }

  #next(counter: string, nowMs: number): CounterRow {
    const { version, keptFrom, kept } = this.#stored.get(counter) ?? NOTHING
    const next = Math.max(version + 1, nowMs)
    const starts = kept === 0 || kept >= PRUNED_AT_ONCE
    const places = this.#places.get(counter)
    return {
      counter,
      version: next,
      keptFrom: starts ? next : keptFrom,
      kept: starts ? 1 : kept + 1,
      fullAtMs: this.#fullAtMs.get(counter) ?? null,
      places: places ? JSON.stringify(Object.fromEntries(places)) : null,
    }
  }

  #write(written: readonly CounterRow[]): void {
    if (written.length === 0) return
    this.#rows.send(
      sql.counters.write,
      this.#subscriptionId,
      written.map(({ counter }) => counter),
      written.map(({ version }) => version),
      written.map(({ keptFrom }) => keptFrom),
      written.map(({ kept }) => kept),
      written.map(({ fullAtMs }) => fullAtMs),
      written.map(({ places }) => places),
    )
  }

  /** Deletes all versions that were read of these. */
  #prune(counters: readonly string[]): void {
    const stored = counters.filter((counter) => this.#stored.has(counter))
    if (stored.length === 0) return
    const keptFrom = stored.map((counter) => this.#stored.get(counter)!.keptFrom)
    const newest = stored.map((counter) => this.#stored.get(counter)!.version)
    this.#rows.send(sql.counters.prune, this.#subscriptionId, stored, keptFrom, newest)
  }

  #ofLiving({ bySource }: Places): Map<string, number> {
    return new Map([...bySource].filter(([source]) => this.isAlive(source)))
  }
}

function parsePlaces(text: string): Map<string, number> {
  return new Map(Object.entries(JSON.parse(text) as Record<string, number>))
}
