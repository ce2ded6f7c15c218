/**
 * Who has what of one subscription: its positions, the ranges that came back, the leases, the open sources, and the
 * owners of partitions. Small, because it speaks of ranges; so it is kept as one text, of which each turn that changes
 * something inserts a new version. Whoever holds the lock of the subscription's row may change it.
 *
 * A message of a partition is
 * - at or beyond the cursor: not handed out yet (the backlog);
 * - behind it and under a lease, returned, set aside (rows of their own), or dead;
 * - or else settled for good, and nothing is kept of it.
 * A message that was set aside stays a row while it is leased.
 */
import type { Lease, ReturnedRange } from './lease.ts'

/** Who alone is given messages of a partition of an ordered subscription. */
export interface Owner {
  readonly source: string
  /** It has been told which keys have chains. */
  announced: boolean
}

interface Stored {
  readonly cursors: readonly (readonly [partition: number, offset: number])[]
  readonly returned: readonly (readonly [partition: number, from: number, to: number, crashes: number])[]
  readonly leases: readonly Lease[]
  readonly owners: readonly (readonly [partition: number, source: string, announced: 0 | 1])[]
  readonly sources: readonly string[]
  readonly setAside: number
  readonly nextLease: number
  readonly dueAtMs: number | null
}

export class DeliveryState {
  /** A lane that came into being later has none: it starts at its first message. */
  readonly cursors: Map<number, number>
  /** In offset order, none overlapping. */
  returned: ReturnedRange[]
  readonly leases: Map<number, Lease>
  readonly owners: Map<number, Owner>
  /** `session/number` of those that are open, in the order in which they were opened. */
  sources: string[]
  /** Rows of messages that were set aside, those under lease too. */
  setAside: number
  /** Nothing that was set aside is due before; undefined when nothing waits for a time. */
  dueAtMs: number | undefined
  #nextLease: number

  private constructor(stored: Stored) {
    this.cursors = new Map(stored.cursors)
    this.returned = stored.returned.map(([partition, from, to, crashes]) => ({ partition, from, to, crashes }))
    this.leases = new Map(stored.leases.map((lease) => [lease.id, lease]))
    this.owners = new Map(
      stored.owners.map(([partition, source, announced]) => [partition, { source, announced: announced === 1 }]),
    )
    this.sources = [...stored.sources]
    this.setAside = stored.setAside
    this.dueAtMs = stored.dueAtMs ?? undefined
    this.#nextLease = stored.nextLease
  }

  /** Of a new subscription. */
  static startingAt(cursors: ReadonlyMap<number, number>): DeliveryState {
    const nothing = { returned: [], leases: [], owners: [], sources: [], setAside: 0, nextLease: 1, dueAtMs: null }
    return new DeliveryState({ ...nothing, cursors: [...cursors] })
  }

  static parse(text: string): DeliveryState {
    return new DeliveryState(JSON.parse(text) as Stored)
  }

  toText(): string {
    const stored: Stored = {
      cursors: [...this.cursors],
      returned: this.returned.map(({ partition, from, to, crashes }) => [partition, from, to, crashes]),
      leases: [...this.leases.values()],
      owners: Array.from(this.owners, ([partition, { source, announced }]) => [partition, source, announced ? 1 : 0]),
      sources: this.sources,
      setAside: this.setAside,
      nextLease: this.#nextLease,
      dueAtMs: this.dueAtMs ?? null,
    }
    return JSON.stringify(stored)
  }

  /** Leases to a source. Ids are never used twice, as far as this state knows. */
  lease(lease: Omit<Lease, 'id'>): Lease {
    const added = { id: this.#nextLease++, ...lease }
    this.leases.set(added.id, added)
    return added
  }

  /** This id was used, and those before it. */
  passOver(id: number): void {
    this.#nextLease = Math.max(this.#nextLease, id + 1)
  }

  /** The lease, if this source holds it. */
  heldBy(source: string, id: number): Lease | undefined {
    const lease = this.leases.get(id)
    return lease?.source === source ? lease : undefined
  }

  /** Puts a range back at the head of what waits. */
  giveBack(range: ReturnedRange): void {
    const place = this.returned.findIndex((other) => isBefore(range, other))
    this.returned.splice(place === -1 ? this.returned.length : place, 0, range)
  }

  /** What was set aside is due at this time. */
  due(atMs: number): void {
    this.dueAtMs = Math.min(this.dueAtMs ?? atMs, atMs)
  }

  /** The rows of messages that are leased, after having been set aside. */
  leasedRows(): number[] {
    const rows: number[] = []
    for (const { rowId } of this.leases.values()) if (rowId !== undefined) rows.push(rowId)
    return rows
  }

  /** Everything before it is settled for good, or in a row. `position`: the cursor's. */
  floor(partition: number, position: number): number {
    let floor = position
    for (const lease of this.leases.values()) {
      if (lease.partition === partition && lease.rowId === undefined) floor = Math.min(floor, lease.open[0] ?? floor)
    }
    for (const range of this.returned) if (range.partition === partition) floor = Math.min(floor, range.from)
    return floor
  }
}

function isBefore(range: ReturnedRange, other: ReturnedRange): boolean {
  return range.partition === other.partition ? range.from < other.from : range.partition < other.partition
}
