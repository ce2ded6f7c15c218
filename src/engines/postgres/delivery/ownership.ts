/**
 * Who is given the messages of which partition of an ordered subscription.
 *
 * A partition is free, or owned by one open source. The partitions of each lane are divided evenly among the open
 * sources, and those opened first take what is left over. A source takes free ones up to its share when it pulls; of
 * more than that, those with the highest numbers are surplus: nothing of them is granted any more, and each is given up
 * as soon as nobody holds a lease there. A partition in which anybody holds a lease is not taken, so that a subscription
 * may become ordered while it is in use.
 */
import type { DeliveryState } from './delivery-state.ts'

/** How the partitions that a source owns are to be used. */
export interface Holding {
  /** Those that it may be granted messages of, rising. */
  readonly active: readonly number[]
  /** Those beyond its share. */
  readonly surplus: readonly number[]
}

export class Ownership {
  readonly #state: DeliveryState
  readonly #partitionsOfLane: number

  constructor(state: DeliveryState, partitionsOfLane: number) {
    this.#state = state
    this.#partitionsOfLane = partitionsOfLane
  }

  holding(source: string): Holding {
    const active: number[] = []
    const surplus: number[] = []
    const lanes = new LaneCounts(this.#partitionsOfLane)
    const share = this.#share(source)
    for (const partition of this.#ownedBy(source)) {
      if (lanes.takeBelow(share, partition)) active.push(partition)
      else surplus.push(partition)
    }
    return { active, surplus }
  }

  /** Takes free ones of these partitions for a source that has less than its share. Returns them. */
  acquire(source: string, partitions: readonly number[]): number[] {
    const busy = this.#busy()
    const lanes = new LaneCounts(this.#partitionsOfLane)
    const share = this.#share(source)
    for (const partition of this.#ownedBy(source)) lanes.takeBelow(Number.POSITIVE_INFINITY, partition)
    const taken: number[] = []
    for (const partition of partitions) {
      if (this.#state.owners.has(partition) || busy.has(partition)) continue
      if (!lanes.takeBelow(share, partition)) continue
      taken.push(partition)
      this.#state.owners.set(partition, { source, announced: false })
    }
    return taken
  }

  /** Gives up what sources own beyond their share and nobody holds a lease of. Says what it was. */
  giveUpSurplus(): number[] {
    const busy = this.#busy()
    const sources = new Set(Array.from(this.#state.owners.values(), ({ source }) => source))
    const given = [...sources].flatMap((source) => this.holding(source).surplus.filter((each) => !busy.has(each)))
    for (const partition of given) this.#state.owners.delete(partition)
    return given
  }

  /** How many partitions of each lane a source may own. */
  #share(source: string): number {
    const { sources } = this.#state
    const count = Math.max(1, sources.length)
    const isEarly = sources.indexOf(source) < this.#partitionsOfLane % count
    return Math.floor(this.#partitionsOfLane / count) + (isEarly ? 1 : 0)
  }

  #ownedBy(source: string): number[] {
    const owned = [...this.#state.owners].filter(([, owner]) => owner.source === source)
    return owned.map(([partition]) => partition).toSorted((one, other) => one - other)
  }

  #busy(): ReadonlySet<number> {
    return new Set(Array.from(this.#state.leases.values(), ({ partition }) => partition))
  }
}

/** How many partitions have been taken of each lane. */
class LaneCounts {
  readonly #partitionsOfLane: number
  readonly #taken: number[] = []

  constructor(partitionsOfLane: number) {
    this.#partitionsOfLane = partitionsOfLane
  }

  /** Takes one of the partition's lane, unless as many as this are taken already. */
  takeBelow(most: number, partition: number): boolean {
    const lane = Math.floor(partition / this.#partitionsOfLane)
    const taken = this.#taken[lane] ?? 0
    if (taken >= most) return false
    this.#taken[lane] = taken + 1
    return true
  }
}
