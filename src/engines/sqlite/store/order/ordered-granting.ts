/**
 * Decides what a pull is given of an ordered subscription: messages of partitions that its source owns.
 *
 * In each partition what came back goes first, in offset order, and until all of it has gone out nothing else does: nobody
 * knows which keys it holds. Then what was set aside and is due, whose keys are known, and new messages. A suspect goes
 * alone, and what came back behind one that cannot go yet waits with it.
 */

import type { FreshPartition, Subscriptions } from '../consumers/subscriptions.ts'
import { FreshLanes } from '../delivery/fresh-lanes.ts'
import { ROWS_PER_GRANT_MAX } from '../delivery/granting.ts'
import type { PlannedGrant } from '../delivery/leases.ts'
import { Allowance, type Demand, type Leasing } from '../delivery/leasing.ts'
import type { Exceptions } from '../settlement/exceptions.ts'
import type { Owner, Ownership } from './ownership.ts'

export class OrderedGranting {
  readonly #leasing: Leasing
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  readonly #ownership: Ownership
  readonly #lanes = new FreshLanes()
  readonly #turns = new Map<number, number>()

  constructor(leasing: Leasing, subscriptions: Subscriptions, exceptions: Exceptions, ownership: Ownership) {
    this.#leasing = leasing
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
    this.#ownership = ownership
  }

  /** `announced`: the partitions whose keys the owner has been told of since it took them. */
  grant(demand: Demand, owner: Owner, announced: ReadonlySet<number>): PlannedGrant[] {
    const allowance = new Allowance(demand)
    const turn = this.#turns.get(owner.subscriptionId) ?? 0
    this.#turns.set(owner.subscriptionId, turn + 1)
    const partitions = rotated(this.#ownership.active(owner), turn)
    const clear = partitions.filter((partition) => this.#grantReturned(demand, partition, allowance))
    // Half is kept for new messages; with room for only one, they take turns once each partition has had its own.
    const { messages } = allowance
    const round = Math.floor(turn / Math.max(1, partitions.length))
    const kept = messages === 1 ? 1 - (round % 2) : messages - (messages >> 1)
    for (const partition of clear) this.#grantSetAside(demand, partition, allowance.messages - kept, allowance)
    if (this.#subscriptions.mayTakeNew(owner.subscriptionId)) this.#grantFresh(demand, clear, allowance)
    for (const partition of clear) this.#grantSetAside(demand, partition, allowance.messages, allowance)
    return this.#announce(owner.subscriptionId, allowance.grants, announced)
  }

  /** Returns whether everything of the partition that had come back is out. */
  #grantReturned(demand: Demand, partition: number, allowance: Allowance): boolean {
    const { rows } = this.#leasing
    for (const row of rows.returnedOf(demand.source.subscriptionId, partition)) {
      if (allowance.isSpent) return false
      const isolated = row.suspect === 1
      if (isolated && rows.isSuspectOut(demand.sessionId)) return false
      if (!this.#leasing.returned(demand, row, isolated, allowance)) return false
    }
    return !rows.anyReturned(demand.source.subscriptionId, partition)
  }

  #grantSetAside(demand: Demand, partition: number, limit: number, allowance: Allowance): void {
    if (limit <= 0 || allowance.isSpent) return
    const { subscriptionId } = demand.source
    const limitMax = Math.min(limit, ROWS_PER_GRANT_MAX)
    const held = new Set<string | null>()
    for (const row of this.#exceptions.dueInPartition(subscriptionId, partition, demand.nowMs, limitMax)) {
      if (allowance.isSpent) return
      const isolated = row.suspect === 1
      // What else is due of the same key was set free together with it, and comes after it.
      if (isolated && this.#leasing.rows.isSuspectOut(demand.sessionId)) held.add(row.key)
      else if (row.key === null || !held.has(row.key)) this.#leasing.setAside(demand, row, isolated, allowance)
    }
  }

  // Evenly from all partitions: the more keys, the more can run side by side.
  #grantFresh(demand: Demand, partitions: readonly number[], allowance: Allowance): void {
    if (allowance.isSpent) return
    const { subscriptionId, topicId } = demand.source
    const fresh = this.#subscriptions.freshPartitions(subscriptionId, topicId)
    const mine = partitions.flatMap((partition) => fresh.find((candidate) => candidate.partition === partition) ?? [])
    for (const { lane, room } of this.#lanes.divide(demand.source, mine, allowance.messages)) {
      this.#grantLane(demand, lane, room, allowance)
    }
  }

  #grantLane(demand: Demand, lane: readonly FreshPartition[], room: number, allowance: Allowance): void {
    let left = room
    for (const [place, fresh] of lane.entries()) {
      if (left <= 0 || allowance.isSpent) return
      left -= this.#leasing.fresh(demand, fresh, Math.ceil(left / (lane.length - place)), allowance)
    }
  }

  // The first grant of a partition that its owner knows nothing of tells which keys are in the store.
  #announce(subscriptionId: number, grants: readonly PlannedGrant[], announced: ReadonlySet<number>): PlannedGrant[] {
    const told = new Set(announced)
    return grants.map((grant) => {
      if (told.has(grant.partition)) return grant
      told.add(grant.partition)
      return { ...grant, takeover: this.#ownership.chains(subscriptionId, grant.partition) }
    })
  }
}

function rotated(partitions: readonly number[], turn: number): readonly number[] {
  const start = partitions.length === 0 ? 0 : turn % partitions.length
  return [...partitions.slice(start), ...partitions.slice(0, start)]
}
