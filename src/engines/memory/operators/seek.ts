import type { StartPosition } from '../../../engine.ts'
import { offsetOf } from '../log/positions.ts'
import { reportLost } from '../settlement/settlement.ts'
import type { MemoryStore } from '../store.ts'
import type { Subscription } from '../subscription.ts'

/** Moves a subscription to a position; partitions that the position does not name stay where they are. */
export function seek(store: MemoryStore, subscription: Subscription, position: StartPosition, nowMs: number): void {
  for (const [partition, log] of subscription.topic.logs) {
    const offset = offsetOf(log, partition, position, store.decoded)
    if (offset !== undefined) seekPartition(subscription, partition, offset, nowMs)
  }
  // Nobody is to find the steps of what was passed over when it comes with another seek.
  subscription.sweepSteps()
  store.waiters.wakeAll()
}

/**
 * What stands at or after `offset` comes again through the cursor, so it must not wait or be leased as well; except
 * for messages that the log no longer has, whose only copy is in their row. What waited for messages that are gone goes on.
 */
function seekPartition(subscription: Subscription, partition: number, offset: number, nowMs: number): void {
  const { returned, rows, leases, deadLetters, chains } = subscription
  const firstKept = Math.max(offset, subscription.topic.log(partition).firstOffset)
  const taken = [...leases.values()].filter(
    (lease) => lease.range.partition === partition && lease.range.to > firstKept,
  )
  for (const lease of taken) {
    leases.delete(lease.id)
    for (const run of lease.unsettledRuns(firstKept)) subscription.giveBack(lease, run, lease.history.crashes)
  }
  subscription.holdReturned(taken)
  returned.cut(partition, firstKept)
  for (const row of [...rows]) if (row.partition === partition && row.offset >= firstKept) rows.remove(row)
  deadLetters.unblock(partition, offset)
  chains.advanceAll(partition, nowMs)
  subscription.move(partition, offset)
  reportLost(taken, 'the subscription was moved to another position')
}
