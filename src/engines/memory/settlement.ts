import type { DeadReason, Failure, SettledException, Settlement } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import type { History, Lease } from './leases.ts'
import type { MemoryStore } from './store.ts'
import type { Subscription } from './subscription.ts'

/** Records a settlement under a lease that is still held. */
export function settleLease(
  store: MemoryStore,
  subscription: Subscription,
  lease: Lease,
  settlement: Settlement,
  nowMs: number,
): void {
  const { acked, exceptions } = settlement
  for (let place = 0; place + 1 < acked.length; place += 2) lease.settleRange(acked[place]!, acked[place + 1]!)
  for (const exception of exceptions) {
    if (lease.settle(exception.offset)) settleException(store, subscription, lease, exception, nowMs)
  }
  if (lease.unsettled > 0) return
  subscription.leases.delete(lease.id)
  if (lease.isolated) store.waiters.wakeAll()
}

function settleException(
  store: MemoryStore,
  subscription: Subscription,
  lease: Lease,
  exception: SettledException,
  nowMs: number,
): void {
  const { partition } = lease.range
  const { offset } = exception
  if (exception.kind === 'release') {
    subscription.giveBack(lease, { from: offset, to: offset + 1 }, lease.history.crashes, nowMs)
  } else if (exception.kind === 'dead') {
    bury(store, subscription, lease, exception, nowMs)
  } else {
    const { attempt, failures } = lease.history
    const history = { attempt: attempt + 1, crashes: 0, failures: [...failures, exception.failure] }
    subscription.waiting.addRow({
      ...lease.history,
      ...history,
      partition,
      offset,
      dueAtMs: exception.dueAtMs,
      returned: false,
    })
  }
}

/** Gives back what is unsettled, with nothing counted. */
export function releaseLeases(subscription: Subscription, leases: readonly Lease[], nowMs: number): void {
  for (const lease of leases) {
    subscription.leases.delete(lease.id)
    for (const run of lease.unsettledRuns()) subscription.giveBack(lease, run, lease.history.crashes, nowMs)
  }
}

/** Gives back what a lost session had, its crashes counted; one that was isolated and did it too often is buried. */
export function loseLeases(
  store: MemoryStore,
  subscription: Subscription,
  leases: readonly Lease[],
  nowMs: number,
): void {
  for (const lease of leases) {
    subscription.leases.delete(lease.id)
    const crashes = lease.history.crashes + 1
    const isGuilty = lease.isolated && crashes >= subscription.maxCrashes
    for (const run of lease.unsettledRuns()) {
      if (isGuilty) buryGuilty(store, subscription, lease, crashes, nowMs)
      else subscription.giveBack(lease, run, crashes, nowMs)
    }
  }
  reportLost(leases, 'its session ran out')
}

/** Tells the holders, each once, after the change that took the leases is complete. */
export function reportLost(leases: readonly Lease[], reason: string): void {
  for (const [holder, lost] of Map.groupBy(leases, (lease) => lease.holder)) {
    const ids = lost.map((lease) => lease.id)
    queueMicrotask(() => holder.leasesLost(ids, reason))
  }
}

function buryGuilty(
  store: MemoryStore,
  subscription: Subscription,
  lease: Lease,
  crashes: number,
  nowMs: number,
): void {
  const error = new PosthornError('POSTHORN_CRASHED_REPEATEDLY', { crashes })
  const { name, code, message } = error
  const failure: Failure = { attempt: lease.history.attempt, atMs: nowMs, name, code, message }
  bury(store, subscription, lease, { offset: lease.range.from, reason: 'crashed', failure, crashes }, nowMs)
}

function bury(
  store: MemoryStore,
  subscription: Subscription,
  lease: Lease,
  death: {
    readonly offset: number
    readonly reason: DeadReason
    readonly failure: Failure
    readonly crashes?: number
  },
  nowMs: number,
): void {
  const { partition } = lease.range
  const { offset, reason, failure, crashes = lease.history.crashes } = death
  const stored = store.decoded.read(subscription.topic.logs[partition]!, offset, offset + 1)[0]?.event
  const event = lease.history.event ?? stored
  const history: History = { ...lease.history, crashes, ...(event && { event }) }
  subscription.bury({ id: store.nextId(), place: { partition, offset }, reason, history, failure, nowMs })
}
