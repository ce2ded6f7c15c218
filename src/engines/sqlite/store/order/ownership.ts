/**
 * Who is given the messages of which partition of an ordered subscription.
 *
 * A partition is free, or owned by one source of one session. The partitions of each lane are divided evenly among the
 * open sources; those opened first take what is left over. A source takes free ones up to its share, and of more than
 * that the ones with the highest numbers are *surplus*: nothing of them is granted any more, and each is given up as soon
 * as the session holds no message of it. A partition that somebody works on is not free, whoever owns it, so that a
 * subscription may become ordered while it is in use. Sessions that end, and sources that close, own nothing.
 *
 * What an owner has is looked up once a turn, as a `Holding`, which is true until the transaction ends that it was read
 * in: there may be thousands of partitions.
 */
import type { KeyChain } from '../../../../engine.ts'
import * as sql from '../../sql/ownership.ts'
import type { FreshPartition } from '../consumers/subscriptions.ts'
import type { Statements } from '../file/connection.ts'
import type { Chains } from './chains.ts'

/** A source of an ordered subscription, and in whose name it owns partitions. */
export interface Owner {
  readonly subscriptionId: number
  readonly topicId: number
  readonly sessionId: number
  readonly source: number
  /** Of each lane of the topic. */
  readonly partitions: number
}

export interface Holding {
  /** What the owner may be given messages of. */
  readonly active: readonly number[]
  readonly surplus: readonly number[]
  /** How many it may have of each lane. */
  readonly share: number
}

/** What changed hands. */
export interface Balance {
  readonly gaveUp: readonly number[]
  readonly took: readonly number[]
  /** What the owner has now. */
  readonly holding: Holding
}

/** A partition of which something could be granted: what came back, what was set aside, or what is new. */
export interface PartitionWork extends FreshPartition {
  readonly returned: 0 | 1
  readonly setAside: 0 | 1
}

export class Ownership {
  readonly #statements: Statements
  readonly #chains: Chains

  constructor(statements: Statements, chains: Chains) {
    this.#statements = statements
    this.#chains = chains
  }

  holding(owner: Owner): Holding {
    const { subscriptionId, sessionId, source, partitions } = owner
    const rows = this.#statements.all<{ partition: number }>(sql.OWNED_PARTITIONS, subscriptionId, sessionId, source)
    const share = this.#shareOf(owner)
    const lanes = new LaneCounts(partitions)
    const active: number[] = []
    const surplus: number[] = []
    for (const { partition } of rows) (lanes.take(partition, share) ? active : surplus).push(partition)
    return { active, surplus, share }
  }

  /** Whether there is anything to take or, perhaps, to give up. */
  isUnbalanced(owner: Owner, holding: Holding): boolean {
    return holding.surplus.length > 0 || this.#takable(owner, holding).length > 0
  }

  /** Gives surplus partitions up, as far as nothing of them is held, and takes free ones. */
  balance(owner: Owner, holding: Holding, nowMs: number): Balance {
    const { subscriptionId, sessionId, source } = owner
    const { active, surplus, share } = holding
    const gaveUp = surplus.filter((partition) => {
      const { changes } = this.#statements.run(sql.GIVE_PARTITION_UP, subscriptionId, partition, sessionId, source)
      return Number(changes) > 0
    })
    const took = this.#takable(owner, holding)
    for (const partition of took) {
      this.#statements.run(sql.OWN_PARTITION, subscriptionId, partition, sessionId, source)
      this.#chains.wakeFirsts(subscriptionId, partition, nowMs)
    }
    if (gaveUp.length + took.length === 0) return { gaveUp, took, holding }
    const gone = new Set(gaveUp)
    const kept = surplus.filter((partition) => !gone.has(partition))
    const owned = [...active, ...took].toSorted((one, other) => one - other)
    return { gaveUp, took, holding: { active: owned, surplus: kept, share } }
  }

  /** What the owner could be given now of its partitions, surplus ones too. */
  work({ subscriptionId, topicId, sessionId, source }: Owner, nowMs: number): PartitionWork[] {
    const parameters = [subscriptionId, nowMs, sessionId, source, topicId] as const
    return this.#statements.all<PartitionWork>(sql.WORK_OF_OWNER, ...parameters)
  }

  /** What a new owner has to know of the partition. */
  chains(subscriptionId: number, partition: number): KeyChain[] {
    return this.#statements.all<KeyChain>(sql.CHAINS_OF_PARTITION, subscriptionId, partition)
  }

  disownSource(sessionId: number, source: number): void {
    this.#statements.run(sql.DISOWN_SOURCE, sessionId, source)
  }

  disownSession(sessionId: number): void {
    this.#statements.run(sql.DISOWN_SESSION, sessionId)
  }

  // Of each lane.
  #shareOf({ subscriptionId, sessionId, source, partitions }: Owner): number {
    const counts = this.#statements.get<{ sources: number; earlier: number }>(
      sql.COUNT_SOURCES,
      subscriptionId,
      sessionId,
      source,
    )!
    const sources = Math.max(1, counts.sources)
    return Math.floor(partitions / sources) + (counts.earlier < partitions % sources ? 1 : 0)
  }

  #takable({ subscriptionId, topicId, partitions }: Owner, { active, surplus, share }: Holding): number[] {
    const lanes = new LaneCounts(partitions)
    for (const partition of [...active, ...surplus]) lanes.take(partition)
    const free = this.#statements.all<{ partition: number }>(sql.FREE_PARTITIONS, subscriptionId, topicId)
    return free.flatMap(({ partition }) => (lanes.take(partition, share) ? [partition] : []))
  }
}

/** How many partitions of each lane somebody has. */
class LaneCounts {
  readonly #partitions: number
  readonly #counts: number[] = []

  constructor(partitions: number) {
    this.#partitions = partitions
  }

  /** Counts a partition, unless its lane has `share` already. Returns whether it was counted. */
  take(partition: number, share = Number.POSITIVE_INFINITY): boolean {
    const lane = Math.floor(partition / this.#partitions)
    const count = this.#counts[lane] ?? 0
    if (count >= share) return false
    this.#counts[lane] = count + 1
    return true
  }
}
