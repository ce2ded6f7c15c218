/**
 * Decides what a pull is given of an ordered subscription: messages of partitions that its source owns.
 *
 * In each partition what came back goes first, in offset order, and until all of it has gone out nothing else does: nobody
 * knows which keys it holds. Then what was set aside and is due, whose keys are known, and new messages. A suspect goes
 * alone, and what came back behind one that cannot go yet waits with it.
 */
import { RETURNED_MAX } from '../../sql/leases.ts'
import type { FreshPartition, Subscriptions } from '../consumers/subscriptions.ts'
import { FreshLanes } from '../delivery/fresh-lanes.ts'
import { ROWS_PER_GRANT_MAX } from '../delivery/granting.ts'
import type { PlannedGrant } from '../delivery/leases.ts'
import { Allowance, type Demand, type Leasing } from '../delivery/leasing.ts'
import { Turns } from '../delivery/turns.ts'
import type { Exceptions } from '../settlement/exceptions.ts'
import type { Ownership, PartitionWork } from './ownership.ts'

type Announced = Pick<ReadonlySet<number>, 'has'>

export class OrderedGranting {
  readonly #leasing: Leasing
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  readonly #ownership: Ownership
  readonly #lanes = new FreshLanes()
  readonly #turns = new Turns()

  constructor(leasing: Leasing, subscriptions: Subscriptions, exceptions: Exceptions, ownership: Ownership) {
    this.#leasing = leasing
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
    this.#ownership = ownership
  }

  /**
   * `active`: the partitions that the owner may be given messages of. `work`: what there is to grant in any.
   * `announced`: those whose keys the owner has been told of since it took them.
   */
  grant(
    demand: Demand,
    active: readonly number[],
    work: readonly PartitionWork[],
    announced: Announced,
  ): PlannedGrant[] {
    const allowance = new Allowance(demand)
    const { subscriptionId } = demand.source
    const turn = this.#turns.next(subscriptionId)
    const clear = inTurn(active, turn, work).filter((partition) => this.#grantReturned(demand, partition, allowance))
    const waiting = clear.filter(({ setAside }) => setAside === 1)
    // Half is kept for new messages; with room for only one, they take turns once each partition has had its own.
    const { messages } = allowance
    const round = Math.floor(turn / Math.max(1, active.length))
    const kept = messages === 1 ? 1 - (round % 2) : messages - (messages >> 1)
    for (const { partition } of waiting) this.#grantSetAside(demand, partition, allowance.messages - kept, allowance)
    if (this.#subscriptions.mayTakeNew(subscriptionId)) this.#grantFresh(demand, clear.filter(isFresh), allowance)
    for (const { partition } of waiting) this.#grantSetAside(demand, partition, allowance.messages, allowance)
    return this.#announce(subscriptionId, allowance.grants, announced)
  }

  /** Returns whether everything of the partition that had come back is out. */
  #grantReturned(demand: Demand, { partition, returned }: PartitionWork, allowance: Allowance): boolean {
    if (returned === 0) return true
    const { rows } = this.#leasing
    const waiting = rows.returnedOf(demand.source.subscriptionId, partition)
    for (const [place, row] of waiting.entries()) {
      // What its owner let go from among what it then lost lies within the range of the rest: it is to come before that.
      const next = waiting[place + 1]
      if (allowance.isSpent || (!next && waiting.length === RETURNED_MAX)) return false
      const isolated = row.suspect === 1
      if (isolated && rows.isSuspectOut(demand.sessionId)) return false
      if (!this.#leasing.returned(demand, row, isolated, allowance, next?.fromOffset)) return false
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
  #grantFresh(demand: Demand, fresh: readonly FreshPartition[], allowance: Allowance): void {
    if (allowance.isSpent) return
    const lanes = this.#lanes.divide(demand.source, fresh, allowance.messages)
    for (const { lane, room } of lanes) this.#grantLane(demand, lane, room, allowance)
    // There was no room for the others; but what was cancelled takes none.
    const rest = fresh.filter((partition) => lanes.every(({ lane }) => !lane.includes(partition)))
    this.#grantLane(demand, rest, allowance.messages, allowance)
  }

  #grantLane(demand: Demand, lane: readonly FreshPartition[], room: number, allowance: Allowance): void {
    let left = room
    for (const [place, fresh] of lane.entries()) {
      if (left <= 0 || allowance.isSpent) return
      left -= this.#leasing.fresh(demand, fresh, Math.ceil(left / (lane.length - place)), allowance)
    }
  }

  // The first grant of a partition that its owner knows nothing of tells which keys are in the store.
  #announce(subscriptionId: number, grants: readonly PlannedGrant[], announced: Announced): PlannedGrant[] {
    const told = new Set<number>()
    return grants.map((grant) => {
      if (announced.has(grant.partition) || told.has(grant.partition)) return grant
      told.add(grant.partition)
      return { ...grant, takeover: this.#ownership.chains(subscriptionId, grant.partition) }
    })
  }
}

/** The work in `active`, beginning with another partition each turn. */
function inTurn(active: readonly number[], turn: number, work: readonly PartitionWork[]): PartitionWork[] {
  const start = active.length === 0 ? 0 : turn % active.length
  const workOf = new Map(work.map((item) => [item.partition, item]))
  return [...active.slice(start), ...active.slice(0, start)].flatMap((partition) => workOf.get(partition) ?? [])
}

function isFresh({ cursor, head }: PartitionWork): boolean {
  return cursor < head
}
