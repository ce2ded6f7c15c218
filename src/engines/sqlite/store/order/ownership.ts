/**
 * Who is given the messages of which partition of an ordered subscription.
 *
 * A partition is free, or owned by one source of one session. The partitions of each lane are divided evenly among the
 * open sources; those opened first take what is left over. A source takes free ones up to its share, and of more than
 * that the ones with the highest numbers are *surplus*: nothing of them is granted any more, and each is given up as soon
 * as the session holds no message of it. A partition that somebody works on is not free, whoever owns it, so that a
 * subscription may become ordered while it is in use. Sessions that end, and sources that close, own nothing.
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
  /** Of each lane of the topic. */
  readonly partitions: number
}

interface Holding {
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

  /** Whether there is anything to take or, perhaps, to give up. */
  isUnbalanced(owner: Owner): boolean {
    const holding = this.#holding(owner)
    return holding.surplus.length > 0 || this.#takable(owner, holding).length > 0
  }

  surplus(owner: Owner): readonly number[] {
    return this.#holding(owner).surplus
  }

  /** Gives surplus partitions up, as far as nothing of them is held, and takes free ones. */
  balance(owner: Owner, nowMs: number): Balance {
    const { subscriptionId, sessionId, source } = owner
    const holding = this.#holding(owner)
    const gaveUp = holding.surplus.filter((partition) => {
      const { changes } = this.#statements.run(sql.GIVE_PARTITION_UP, subscriptionId, partition, sessionId, source)
      return Number(changes) > 0
    })
    const took = this.#takable(owner, holding)
    for (const partition of took) {
      this.#statements.run(sql.OWN_PARTITION, subscriptionId, partition, sessionId, source)
      this.#chains.wakeFirsts(subscriptionId, partition, nowMs)
    }
    return { gaveUp, took }
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

  #holding(owner: Owner): Holding {
    const { subscriptionId, sessionId, source, partitions } = owner
    const rows = this.#statements.all<{ partition: number }>(sql.OWNED_PARTITIONS, subscriptionId, sessionId, source)
    const { sources, earlier } = this.#statements.get<{ sources: number; earlier: number }>(
      sql.COUNT_SOURCES,
      subscriptionId,
      sessionId,
      source,
    )!
    const share = shareOf(partitions, Math.max(1, sources), earlier)
    const active: number[] = []
    const surplus: number[] = []
    for (const { partition } of rows) {
      const isWithin = countLane(active, partition, partitions) < share
      if (isWithin) active.push(partition)
      else surplus.push(partition)
    }
    return { active, surplus, share }
  }

  #takable(owner: Owner, { active, surplus, share }: Holding): number[] {
    const { subscriptionId, topicId, partitions } = owner
    const taken = [...active, ...surplus]
    const free = this.#statements.all<{ partition: number }>(sql.FREE_PARTITIONS, subscriptionId, topicId)
    return free.flatMap(({ partition }) => {
      if (countLane(taken, partition, partitions) >= share) return []
      taken.push(partition)
      return [partition]
    })
  }
}

function shareOf(partitions: number, sources: number, earlier: number): number {
  return Math.floor(partitions / sources) + (earlier < partitions % sources ? 1 : 0)
}

/** How many of `taken` are in the same lane as a partition. */
function countLane(taken: readonly number[], partition: number, partitions: number): number {
  const lane = Math.floor(partition / partitions)
  return taken.filter((other) => Math.floor(other / partitions) === lane).length
}
