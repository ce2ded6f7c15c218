/**
 * Who is given the messages of which partition of an ordered subscription.
 *
 * A partition is free, or owned by one open source. The partitions of each lane are divided evenly among the open sources,
 * and those opened first take what is left over. A source takes free ones up to its share when it pulls; of more than that, those with the highest numbers are surplus:
 * nothing of them is granted any more, and each is given up as soon as the source holds no lease there. A partition in
 * which anybody holds a lease is not taken, so that a subscription may become ordered while it is in use. A source that
 * closes, or whose session is lost, owns nothing.
 */
import type { KeyChain } from '../../../engine.ts'
import type { LeaseHolder } from '../delivery/leases.ts'
import type { Subscription } from '../subscription.ts'

interface Owned {
  readonly owner: LeaseHolder
  /** The owner has been told which keys have chains. */
  isAnnounced: boolean
}

export class Ownership {
  readonly #subscription: Subscription
  readonly #owned = new Map<number, Owned>()

  constructor(subscription: Subscription) {
    this.#subscription = subscription
  }

  /** The partitions of which the source may be granted messages, rising. */
  active(source: LeaseHolder): readonly number[] {
    return this.#split(source).active
  }

  /** Takes free partitions for a source that has less than its share. */
  acquire(source: LeaseHolder, nowMs: number): void {
    this.giveUpSurplus()
    const owned = this.#ownedBy(source)
    for (const partition of this.#free()) {
      if (this.#countLane(owned, partition) >= this.#share(source)) continue
      owned.push(partition)
      this.#owned.set(partition, { owner: source, isAnnounced: false })
      this.#subscription.chains.advanceAll(partition, nowMs)
    }
  }

  /** Gives up what sources own beyond their share and hold no lease of. Of what is left they are told. */
  giveUpSurplus(): void {
    const busy = this.#busyPartitions()
    for (const source of new Set(Array.from(this.#owned.values(), ({ owner }) => owner))) {
      const { surplus } = this.#split(source)
      for (const partition of surplus) if (!busy.has(partition)) this.#owned.delete(partition)
      const left = surplus.filter((partition) => busy.has(partition))
      if (left.length > 0) source.crowded(left)
    }
  }

  /** The chains of the partition, if its owner has not been told of them. */
  announce(partition: number): readonly KeyChain[] | undefined {
    const owned = this.#owned.get(partition)
    if (!owned || owned.isAnnounced) return undefined
    owned.isAnnounced = true
    return this.#subscription.chains.ofPartition(partition)
  }

  disown(source: LeaseHolder): void {
    for (const partition of this.#ownedBy(source)) this.#owned.delete(partition)
  }

  clear(): void {
    this.#owned.clear()
  }

  #split(source: LeaseHolder): { active: number[]; surplus: number[] } {
    const active: number[] = []
    const surplus: number[] = []
    for (const partition of this.#ownedBy(source)) {
      if (this.#countLane(active, partition) < this.#share(source)) active.push(partition)
      else surplus.push(partition)
    }
    return { active, surplus }
  }

  /** How many partitions of each lane a source may own. */
  #share(source: LeaseHolder): number {
    const { topic, sources } = this.#subscription
    const { partitions } = topic.config
    const count = Math.max(1, sources.size)
    return Math.floor(partitions / count) + ([...sources].indexOf(source) < partitions % count ? 1 : 0)
  }

  #countLane(taken: readonly number[], partition: number): number {
    const laneOf = (number: number) => Math.floor(number / this.#subscription.topic.config.partitions)
    return taken.filter((other) => laneOf(other) === laneOf(partition)).length
  }

  #ownedBy(source: LeaseHolder): number[] {
    const owned = [...this.#owned].filter(([, { owner }]) => owner === source)
    return owned.map(([partition]) => partition).toSorted((one, other) => one - other)
  }

  #free(): number[] {
    const busy = this.#busyPartitions()
    const partitions = [...this.#subscription.topic.logs.keys()]
    return partitions.filter((partition) => !this.#owned.has(partition) && !busy.has(partition))
  }

  #busyPartitions(): ReadonlySet<number> {
    return new Set(Array.from(this.#subscription.leases.values(), ({ range }) => range.partition))
  }
}
