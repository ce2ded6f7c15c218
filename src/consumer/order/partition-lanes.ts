/**
 * What is known of one partition that this consumer owns: the lanes of the keys that are in memory, and which keys have
 * messages in the store.
 *
 * A key is *stored* from the moment on when one of its messages is given up to the store (a retry, a message set aside,
 * a dead letter that blocks its key), or is said to be there by a takeover, until the last one known of is settled for good
 * and recorded. What arrives of it meanwhile is behind that, and goes there too. The first offset is the lowest that was
 * ever there, which is at or before the real one: what is before it was overlooked by nobody. Operators can empty a
 * chain without our knowing; then the next message of the key is set aside once, is due at once, and ends the matter.
 *
 * Grants may *cross* a settlement: several of a chain become due together, and while one of them is being given back to
 * the store, a pull may bring the next ones, granted before the engine knew. So what a pull brings that was under way
 * when the engine recorded that an earlier message of the key waits again, has to wait behind it.
 *
 * Messages that are released go back into the log's part of the partition, from which the engine grants in offset order.
 * Until all of that is recorded, and from a pull that was under way then, what comes of the partition may have been
 * granted ahead of them, and goes back too. The first takeover since ends that.
 */
import { BoxMap } from '../../collections/box-map.ts'
import type { KeyChain } from '../../engine.ts'
import { Lane } from './lane.ts'

interface StoredKey {
  firstOffset: number
  lastOffset: number
  /** The message that was given back last, and how many pulls had been begun when that was recorded. */
  returnedOffset: number
  returnedAtPull: number
}

export class PartitionLanes {
  /** Keys to be named in the next settlement of the partition. */
  freed: string[] = []
  /** Messages that were given back, which is not recorded yet. */
  leaving = 0
  /** How many pulls had been begun when the last of them was recorded. */
  #leftAtPull = -1
  readonly #lanes = new BoxMap<string, Lane>()
  #stored = new Map<string, StoredKey>()

  /** The lane of a key. Without a key: a new one. */
  laneOf(key: string | undefined): Lane {
    const existing = key === undefined ? undefined : this.#lanes.get(key)
    if (existing !== undefined) return existing
    const lane = new Lane(this, key)
    if (key !== undefined) this.#lanes.set(key, lane)
    return lane
  }

  /** Nothing of the lane is in memory any more. */
  close(lane: Lane): void {
    if (lane.key !== undefined && this.#lanes.get(lane.key) === lane) this.#lanes.take(lane.key)
  }

  lanes(): readonly Lane[] {
    return this.#lanes.values()
  }

  takeOver(chains: readonly KeyChain[]): void {
    this.#leftAtPull = -1
    this.#stored = new Map(chains.map(({ key, firstOffset, lastOffset }) => [key, storedKey(firstOffset, lastOffset)]))
  }

  /** Recorded: a message has been given back, and `pulls` have been begun so far. */
  left(pulls: number): void {
    this.leaving--
    this.#leftAtPull = pulls
  }

  /** Whether what pull number `pull` has brought may have been granted ahead of messages that were given back. */
  isLeft(pull: number): boolean {
    return this.leaving > 0 || pull <= this.#leftAtPull
  }

  /** Whether something of the key in the store comes before this offset. */
  storedBefore(key: string, offset: number): boolean {
    if (this.#stored.size === 0) return false
    const stored = this.#stored.get(key)
    return stored !== undefined && stored.firstOffset < offset
  }

  store(key: string, offset: number): void {
    const stored = this.#stored.get(key)
    if (stored === undefined) this.#stored.set(key, storedKey(offset, offset))
    else if (offset > stored.lastOffset) stored.lastOffset = offset
    else if (offset < stored.firstOffset) stored.firstOffset = offset
  }

  /** Recorded: the message waits in the store, and `pulls` have been begun so far. */
  returned(key: string, offset: number, pulls: number): void {
    const stored = this.#stored.get(key)
    if (stored === undefined) return
    stored.returnedOffset = offset
    stored.returnedAtPull = pulls
  }

  /**
   * Whether a message that pull number `pull` has brought out of the store was granted before an earlier one of its key
   * was given back. Once that one itself comes again, nothing can have crossed it any more.
   */
  crosses(key: string, offset: number, pull: number): boolean {
    if (this.#stored.size === 0) return false
    const stored = this.#stored.get(key)
    if (stored === undefined) return false
    if (offset <= stored.returnedOffset) stored.returnedOffset = Number.POSITIVE_INFINITY
    return stored.returnedOffset < offset && pull <= stored.returnedAtPull
  }

  /** Recorded: the message is settled for good. */
  settled(key: string, offset: number): void {
    if (this.#stored.size > 0 && this.#stored.get(key)?.lastOffset === offset) this.#stored.delete(key)
  }
}

function storedKey(firstOffset: number, lastOffset: number): StoredKey {
  return { firstOffset, lastOffset, returnedOffset: Number.POSITIVE_INFINITY, returnedAtPull: 0 }
}
