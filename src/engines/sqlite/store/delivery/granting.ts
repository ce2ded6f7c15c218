import type { FreshPartition, Subscriptions } from '../consumers/subscriptions.ts'
import type { Exceptions } from '../settlement/exceptions.ts'
import { FreshLanes } from './fresh-lanes.ts'
import type { PlannedGrant } from './leases.ts'
import { Allowance, type Demand, type Leasing } from './leasing.ts'
import { Turns } from './turns.ts'

/** Rows are read whole before their size is known, and redriven ones hold their message. */
export const ROWS_PER_GRANT_MAX = 64

/** Decides what a pull is given of a subscription without order. */
export class Granting {
  readonly #leasing: Leasing
  readonly #subscriptions: Subscriptions
  readonly #exceptions: Exceptions
  readonly #lanes = new FreshLanes()
  readonly #turns = new Turns()

  constructor(leasing: Leasing, subscriptions: Subscriptions, exceptions: Exceptions) {
    this.#leasing = leasing
    this.#subscriptions = subscriptions
    this.#exceptions = exceptions
  }

  /** Leases up to `messagesMax` messages to the session: what came back first, then retries and fresh messages. */
  grant(demand: Demand): PlannedGrant[] {
    const allowance = new Allowance(demand)
    this.#grantReturned(demand, allowance)
    // Half is kept for fresh messages; with room for only one, retries and fresh messages take turns.
    const turn = this.#turns.next(demand.source.subscriptionId)
    const { messages } = allowance
    this.#grantSetAside(demand, messages === 1 ? turn % 2 : messages >> 1, allowance)
    if (this.#subscriptions.mayTakeNew(demand.source.subscriptionId)) this.#grantFresh(demand, turn, allowance)
    this.#grantSetAside(demand, allowance.messages, allowance)
    return allowance.grants
  }

  #grantReturned(demand: Demand, allowance: Allowance): void {
    const { rows } = this.#leasing
    let suspectIsOut: boolean | undefined
    for (const row of rows.returned(demand.source.subscriptionId)) {
      if (allowance.isSpent) return
      if (row.suspect === 1) {
        suspectIsOut ??= rows.isSuspectOut(demand.sessionId)
        if (suspectIsOut) continue
        suspectIsOut = true
      }
      this.#leasing.returned(demand, row, row.suspect === 1, allowance)
    }
  }

  #grantSetAside(demand: Demand, limit: number, allowance: Allowance): void {
    if (limit <= 0 || allowance.isSpent) return
    const { sessionId, nowMs } = demand
    const { subscriptionId } = demand.source
    const suspectIsOut = this.#leasing.rows.isSuspectOut(sessionId)
    const suspects = suspectIsOut ? [] : this.#exceptions.dueSuspects(subscriptionId, nowMs, 1)
    const othersMax = Math.min(limit - suspects.length, ROWS_PER_GRANT_MAX)
    for (const row of suspects) this.#leasing.setAside(demand, row, true, allowance)
    for (const row of this.#exceptions.due(subscriptionId, nowMs, othersMax)) {
      if (allowance.isSpent) return
      this.#leasing.setAside(demand, row, false, allowance)
    }
  }

  #grantFresh(demand: Demand, turn: number, allowance: Allowance): void {
    if (allowance.isSpent) return
    const { subscriptionId, topicId } = demand.source
    const fresh = this.#subscriptions.freshPartitions(subscriptionId, topicId)
    const lanes = this.#lanes.divide(demand.source, fresh, allowance.messages)
    for (const { lane, room } of lanes) this.#grantLane(demand, lane, turn, room, allowance)
    // What one lane had no use for after all, the others take; also those for which there was no room.
    const isOneLane = lanes[0]?.lane.length === fresh.length
    if (!isOneLane && !allowance.isSpent) this.#grantRest(demand, allowance)
  }

  #grantRest(demand: Demand, allowance: Allowance): void {
    const { subscriptionId, topicId } = demand.source
    const fresh = this.#subscriptions.freshPartitions(subscriptionId, topicId)
    this.#grantLane(demand, fresh, 0, allowance.messages, allowance)
  }

  // Starts elsewhere each time, so that a busy partition does not keep the others waiting.
  #grantLane(demand: Demand, lane: readonly FreshPartition[], turn: number, room: number, allowance: Allowance): void {
    let left = room
    for (let step = 0; step < lane.length && left > 0 && !allowance.isSpent; step++) {
      const fresh = lane[(turn + step) % lane.length]!
      left -= this.#leasing.fresh(demand, fresh, left, allowance)
    }
  }
}
