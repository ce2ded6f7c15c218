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
 * Grants may *cross* a settlement: several of a chain become due together, and while one of them is on its way back to the
 * store, or a dead letter that blocks its key is skipped, a pull may bring the next ones, granted before the engine knew.
 * So what comes of a key has to turn back as long as an earlier message of it is on that way (`GivenUp`).
 *
 * Messages that are released go back into the log's part of the partition, from which the engine grants in offset order.
 * Until all of that is recorded, and from a pull that was under way then, what comes of the partition may have been
 * granted ahead of them, and goes back too. The first takeover since ends that.
 */
import { BoxMap } from '../../collections/box-map.ts'
import type { KeyChain } from '../../engine.ts'
import { GivenUp } from './given-up.ts'
import { Lane, type LaneItem } from './lane.ts'

interface StoredKey {
  firstOffset: number
  lastOffset: number
  readonly givenUp: GivenUp
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

  /** Whether the message, which has just come, has to go behind what its key has in the store, or on its way there. */
  waitsInStore({ lane: { key }, ledger, offset }: LaneItem): boolean {
    const stored = this.#ofKey(key)
    if (stored === undefined) return false
    return ledger.grant.setAside ? stored.givenUp.crosses(offset, ledger.pull) : stored.firstOffset < offset
  }

  /** A message is given up to the store, and `pulls` have been begun so far. */
  store(item: LaneItem, pulls: number): void {
    const { lane, offset } = item
    if (lane.key === undefined) return
    const stored = this.#ofKey(lane.key) ?? storedKey(offset, offset)
    this.#stored.set(lane.key, stored)
    stored.firstOffset = Math.min(stored.firstOffset, offset)
    stored.lastOffset = Math.max(stored.lastOffset, offset)
    stored.givenUp.add(item, pulls)
  }

  /** What became of a message is recorded, and `pulls` have been begun so far. */
  recorded(item: LaneItem, pulls: number): void {
    const { lane, offset, outcome } = item
    const stored = this.#ofKey(lane.key)
    if (stored === undefined || lane.key === undefined) return
    if (outcome === 'stored') stored.givenUp.recorded(item, pulls)
    if (outcome === 'done' && stored.lastOffset === offset) this.#stored.delete(lane.key)
  }

  /** The lease of a message is lost: nothing of it will be recorded any more. */
  lost(item: LaneItem): void {
    this.#ofKey(item.lane.key)?.givenUp.lost(item)
  }

  #ofKey(key: string | undefined): StoredKey | undefined {
    return this.#stored.size === 0 || key === undefined ? undefined : this.#stored.get(key)
  }
}

function storedKey(firstOffset: number, lastOffset: number): StoredKey {
  return { firstOffset, lastOffset, givenUp: new GivenUp() }
}
