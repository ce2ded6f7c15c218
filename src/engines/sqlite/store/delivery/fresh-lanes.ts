import type { Priority } from '../../../../engine.ts'
import { LANES, LaneShares } from '../../../lane-shares.ts'
import type { FreshPartition } from '../consumers/subscriptions.ts'
import type { SourceRow } from './leases.ts'

/** New messages of a lane, and how many of them a pull may take. */
export interface FreshLane {
  readonly lane: readonly FreshPartition[]
  readonly room: number
}

/** Shares the room of pulls out among the lanes of each subscription's topic. */
export class FreshLanes {
  readonly #shares = new Map<number, LaneShares>()

  /** The lanes that have new messages in these partitions, the most urgent first. */
  divide({ subscriptionId, partitions }: SourceRow, fresh: readonly FreshPartition[], room: number): FreshLane[] {
    const lanes = Map.groupBy(fresh, ({ partition }) => priorityOf(partition, partitions))
    const waiting = new Map(Array.from(lanes, ([priority, lane]) => [priority, messagesOf(lane)]))
    const shares = this.#shares.get(subscriptionId) ?? new LaneShares()
    this.#shares.set(subscriptionId, shares)
    return shares.divide(waiting, room).map(({ lane, room: share }) => ({ lane: lanes.get(lane)!, room: share }))
  }
}

/** Of a topic with so many partitions in each lane. */
export function priorityOf(partition: number, partitionsOfLane: number): Priority {
  return LANES[Math.floor(partition / partitionsOfLane)] ?? 'normal'
}

// More than there are, where some were cancelled or deleted.
function messagesOf(lane: readonly FreshPartition[]): number {
  return lane.reduce((sum, { cursor, head }) => sum + head - cursor, 0)
}
