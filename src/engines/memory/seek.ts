import type { StartPosition } from '../../engine.ts'
import { offsetOf } from './positions.ts'
import { reportLost } from './settlement.ts'
import type { MemoryStore } from './store.ts'
import type { Subscription } from './subscription.ts'

/** Moves a subscription to a position; partitions that the position does not name stay where they are. */
export function seek(store: MemoryStore, subscription: Subscription, position: StartPosition, nowMs: number): void {
  for (const [partition, log] of subscription.topic.logs.entries()) {
    const offset = offsetOf(log, partition, position, store.decoded)
    if (offset !== undefined) seekPartition(subscription, partition, offset, nowMs)
  }
  store.waiters.wakeAll()
}

/**
 * What stands at or after `offset` comes again through the cursor, so it must not wait or be leased as well; except
 * for messages that the log no longer has, whose only copy is in their retry row or lease.
 */
function seekPartition(subscription: Subscription, partition: number, offset: number, nowMs: number): void {
  const { waiting, leases } = subscription
  const firstKept = Math.max(offset, subscription.topic.logs[partition]!.firstOffset)
  const taken = [...leases.values()].filter(
    (lease) => lease.range.partition === partition && lease.range.to > firstKept,
  )
  for (const lease of taken) {
    leases.delete(lease.id)
    for (const run of lease.unsettledRuns(firstKept)) subscription.giveBack(lease, run, lease.history.crashes, nowMs)
  }
  waiting.cutRanges(partition, firstKept)
  waiting.keepRows((row) => row.partition !== partition || row.offset < firstKept)
  subscription.cursors[partition] = offset
  reportLost(taken, 'the subscription was moved to another position')
}
