import type { Priority } from '../../../engine.ts'
import { BY_URGENCY, LANES, type LaneShares } from '../../lane-shares.ts'
import type { LogView } from '../log/log-index.ts'
import type { Allowance } from './allowance.ts'
import type { Turn } from './turns.ts'

/** What one partition has that is new, and how far it is to be granted. */
export interface FreshRun {
  readonly partition: number
  readonly from: number
  readonly end: number
  to: number
}

type Lanes = Map<Priority, FreshRun[]>

/**
 * How far new messages of these partitions, in their order, are to be granted: by the weights of the lanes while several
 * of them have some, counted message by message, so that the limit of bytes is shared as well. The most urgent come first.
 */
export function planFresh(
  turn: Turn,
  log: LogView,
  shares: LaneShares,
  partitions: readonly number[],
  allowance: Allowance,
): FreshRun[] {
  const { state, subscription } = turn
  if (allowance.isFull || state.setAside >= subscription.maxParked) return []
  const lanes = lanesOf(turn, log, partitions)
  extendRuns(turn, log, shares, lanes, allowance)
  return BY_URGENCY.flatMap((lane) => lanes.get(lane) ?? []).filter(({ from, to }) => to > from)
}

/** The first message at or behind the cursor that is still there. */
export function positionOf({ state, subscription }: Turn, log: LogView, partition: number): number {
  return Math.max(state.cursors.get(partition) ?? 0, log.firstOffset(subscription.topicId, partition))
}

function lanesOf(turn: Turn, log: LogView, partitions: readonly number[]): Lanes {
  const { topicId, partitions: partitionsOfLane } = turn.subscription
  const runs = partitions.map((partition): FreshRun => {
    const from = positionOf(turn, log, partition)
    return { partition, from, end: log.nextOffset(topicId, partition), to: from }
  })
  return Map.groupBy(runs, ({ partition }) => LANES[Math.floor(partition / partitionsOfLane)]!)
}

function extendRuns(turn: Turn, log: LogView, shares: LaneShares, lanes: Lanes, allowance: Allowance): void {
  const { topicId } = turn.subscription
  let { messagesLeft: messages, bytesLeft: bytes } = allowance
  let isEmpty = allowance.leases.length === 0
  while (messages > 0 && (bytes > 0 || isEmpty)) {
    const active = BY_URGENCY.filter((lane) => nextRun(lanes, lane) !== undefined)
    if (active.length === 0) return
    const run = nextRun(lanes, shares.pick(active))!
    const { partition, to } = run
    const end = Math.min(run.end, to + (active.length > 1 ? 1 : messages))
    run.to = log.reach(topicId, partition, to, end, bytes)
    messages -= run.to - to
    bytes -= log.bytesOf(topicId, partition, to, run.to)
    isEmpty = false
  }
}

function nextRun(lanes: Lanes, lane: Priority): FreshRun | undefined {
  return lanes.get(lane)?.find(({ to, end }) => to < end)
}
