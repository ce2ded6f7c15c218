import type { Priority } from '../../../engine.ts'
import { BY_URGENCY } from '../../lane-shares.ts'
import type { Subscription } from '../subscription.ts'
import type { Leasing } from './leasing.ts'

/** What one partition has that is new, and how far it is to be granted. */
interface FreshRun {
  readonly partition: number
  readonly from: number
  readonly end: number
  to: number
}

type Lanes = Map<Priority, FreshRun[]>

/**
 * Grants new messages of these partitions, in their order, as far as there is room: by the weights of the lanes while
 * several of them have some, counted message by message, so that the limit of bytes is shared as well.
 */
export function grantFresh(leasing: Leasing, partitions: readonly number[]): void {
  const { subscription } = leasing.request
  if (leasing.isFull() || subscription.rows.size >= subscription.maxParked) return
  const lanes = lanesOf(subscription, partitions)
  planRuns(leasing, lanes)
  for (const lane of BY_URGENCY) {
    for (const { partition, from, to } of lanes.get(lane) ?? []) if (to > from) leasing.fresh({ partition, from, to })
  }
}

function lanesOf(subscription: Subscription, partitions: readonly number[]): Lanes {
  const { topic } = subscription
  const runs = partitions.map((partition): FreshRun => {
    const from = subscription.position(partition)
    return { partition, from, end: topic.log(partition).nextOffset, to: from }
  })
  return Map.groupBy(runs, ({ partition }) => topic.priorityOf(partition))
}

function planRuns({ request, messagesLeft, bytesLeft, grants }: Leasing, lanes: Lanes): void {
  const { topic, lanes: shares } = request.subscription
  let [messages, bytes, isEmpty] = [messagesLeft, bytesLeft, grants.length === 0]
  while (messages > 0 && (bytes > 0 || isEmpty)) {
    const active = BY_URGENCY.filter((lane) => nextRun(lanes, lane) !== undefined)
    if (active.length === 0) return
    const run = nextRun(lanes, shares.pick(active))!
    const log = topic.log(run.partition)
    const { to } = run
    run.to = log.reach(to, Math.min(run.end, to + (active.length > 1 ? 1 : messages)), bytes)
    messages -= run.to - to
    bytes -= log.bytesOf(to, run.to)
    isEmpty = false
  }
}

function nextRun(lanes: Lanes, lane: Priority): FreshRun | undefined {
  return lanes.get(lane)?.find(({ to, end }) => to < end)
}
