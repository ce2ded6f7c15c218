/**
 * Who is given the messages of which partition of an ordered subscription.
 *
 * A partition is free, or owned by one source of one session. Each source may own `ceil(partitions / sources)`: it takes
 * free ones up to that number, and of more than that the ones with the highest numbers are *surplus*: nothing of them is
 * granted any more, and each is given up as soon as the session holds no message of it. A partition that somebody works
 * on is not free, whoever owns it, so that a subscription may become ordered while it is in use. Sessions that end, and
 * sources that close, own nothing.
 */
import type { KeyChain } from '../../../../engine.ts'
import * as sql from '../../sql/ownership.ts'
import type { Statements } from '../file/connection.ts'
import type { Chains } from './chains.ts'

/** A source of an ordered subscription, and in whose name it owns partitions. */
export interface Owner {
  readonly subscriptionId: number
  readonly topicId: number
  readonly sessionId: number
  readonly source: number
}

interface Holding {
  /** What the owner may be given messages of. */
  readonly active: readonly number[]
  readonly surplus: readonly number[]
  /** How many more it may take. */
  readonly missing: number
}

export class Ownership {
  readonly #statements: Statements
  readonly #chains: Chains

  constructor(statements: Statements, chains: Chains) {
    this.#statements = statements
    this.#chains = chains
  }

  /** The partitions of which the owner may be given messages. */
  active(owner: Owner): readonly number[] {
    return this.#holding(owner).active
  }

  /** All that is the owner's, surplus too. */
  owned(owner: Owner): readonly number[] {
    const { active, surplus } = this.#holding(owner)
    return [...active, ...surplus]
  }

  /** Whether there is anything to take or, perhaps, to give up. */
  isUnbalanced(owner: Owner): boolean {
    const { surplus, missing } = this.#holding(owner)
    return surplus.length > 0 || (missing > 0 && this.#free(owner, 1).length > 0)
  }

  hasSurplus(owner: Owner): boolean {
    return this.#holding(owner).surplus.length > 0
  }

  /** Gives surplus partitions up and takes free ones. Returns whether it gave up any, for others to take. */
  balance(owner: Owner, nowMs: number): boolean {
    const { subscriptionId, sessionId, source } = owner
    const { surplus, missing } = this.#holding(owner)
    let gaveUp = false
    for (const partition of surplus) {
      const { changes } = this.#statements.run(sql.GIVE_PARTITION_UP, subscriptionId, partition, sessionId, source)
      if (Number(changes) > 0) gaveUp = true
    }
    for (const partition of missing > 0 ? this.#free(owner, missing) : []) {
      this.#statements.run(sql.OWN_PARTITION, subscriptionId, partition, sessionId, source)
      this.#chains.wakeFirsts(subscriptionId, partition, nowMs)
    }
    return gaveUp
  }

  /** Whether the owner could be given something of the partition now; something new only if there is `room`. */
  hasWork({ subscriptionId, topicId }: Owner, partition: number, room: boolean, nowMs: number): boolean {
    const parameters = [subscriptionId, partition, nowMs, Number(room), topicId] as const
    return this.#statements.get<{ found: 0 | 1 }>(sql.LOOK_FOR_WORK_IN_PARTITION, ...parameters)!.found === 1
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

  #holding({ subscriptionId, topicId, sessionId, source }: Owner): Holding {
    const rows = this.#statements.all<{ partition: number }>(sql.OWNED_PARTITIONS, subscriptionId, sessionId, source)
    const owned = rows.map(({ partition }) => partition)
    const counts = this.#statements.get<{ partitions: number; sources: number }>(
      sql.COUNT_SHARES,
      subscriptionId,
      topicId,
    )!
    const share = Math.ceil(counts.partitions / Math.max(1, counts.sources))
    return { active: owned.slice(0, share), surplus: owned.slice(share), missing: Math.max(0, share - owned.length) }
  }

  #free({ subscriptionId, topicId }: Owner, limit: number): number[] {
    const rows = this.#statements.all<{ partition: number }>(sql.FREE_PARTITIONS, subscriptionId, topicId, limit)
    return rows.map(({ partition }) => partition)
  }
}
