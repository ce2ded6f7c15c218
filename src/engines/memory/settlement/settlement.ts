import type { DeadReason, Failure, SettledException, Settlement } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { History, Lease } from '../delivery/leases.ts'
import type { MemoryStore } from '../store.ts'
import type { MessagePlace, Subscription } from '../subscription.ts'
import type { Row, Wait } from './set-aside.ts'

type SetAsideException = Extract<SettledException, { kind: 'retry' | 'park' }>

interface Death {
  readonly reason: DeadReason
  readonly failure: Failure
  readonly crashes?: number
  readonly key?: string
  readonly blocks?: boolean
}

/** Records what becomes of a subscription's leased messages at one moment. The only way by which they end. */
export class Settling {
  readonly #store: MemoryStore
  readonly #subscription: Subscription
  readonly #nowMs: number

  constructor(store: MemoryStore, subscription: Subscription, nowMs: number) {
    this.#store = store
    this.#subscription = subscription
    this.#nowMs = nowMs
  }

  /** Records a settlement under a lease that is still held. */
  settle(lease: Lease, { acked, exceptions, freed = [] }: Settlement): void {
    for (let place = 0; place + 1 < acked.length; place += 2) this.#ack(lease, acked[place]!, acked[place + 1]!)
    for (const exception of exceptions) if (lease.settle(exception.offset)) this.#except(lease, exception)
    for (const key of freed) this.#subscription.chains.advance(lease.range.partition, key, this.#nowMs)
    this.#endIfSettled(lease)
  }

  /** Gives back what is unsettled, with nothing counted. */
  release(leases: readonly Lease[]): void {
    for (const lease of leases) {
      this.#subscription.leases.delete(lease.id)
      for (const run of lease.unsettledRuns()) this.#subscription.giveBack(lease, run, lease.history.crashes)
    }
    this.#subscription.holdReturned(leases)
  }

  /** Gives back what a lost session had, its crashes counted; one that was isolated and did it too often is buried. */
  lose(leases: readonly Lease[]): void {
    for (const lease of leases) {
      this.#subscription.leases.delete(lease.id)
      const crashes = lease.history.crashes + 1
      const isGuilty = lease.isolated && crashes >= this.#subscription.maxCrashes
      for (const run of lease.unsettledRuns()) {
        if (isGuilty) this.#buryGuilty(lease, crashes)
        else this.#subscription.giveBack(lease, run, crashes)
      }
    }
    this.#subscription.holdReturned(leases)
    reportLost(leases, 'its session ran out')
  }

  /** Ends a message wherever the subscription has it. Says what it was doing, if there was anything to end. */
  cancel(place: MessagePlace): 'waiting' | 'running' | undefined {
    const { partition, offset } = place
    const subscription = this.#subscription
    const leases = [...subscription.leases.values()].filter((lease) => lease.range.partition === partition)
    const held = leases.filter((lease) => lease.settle(offset))
    for (const lease of held) this.#cancelLeased(lease, offset)
    const rows = [...subscription.rows].filter((row) => row.partition === partition && row.offset === offset)
    for (const row of rows) this.removeRow(row)
    const isReturned = subscription.returned.takeOut(partition, offset)
    const isFresh = offset >= subscription.position(partition)
    if (held.length + rows.length > 0 || isReturned || isFresh) subscription.steps.forget(place)
    if (held.length > 0) return 'running'
    return rows.length > 0 || isReturned || isFresh ? 'waiting' : undefined
  }

  /** The message of the row is done with: what waits behind it goes on. */
  removeRow(row: Row): void {
    this.#subscription.rows.remove(row)
    this.#subscription.chains.advance(row.partition, row.key, this.#nowMs)
  }

  #ack(lease: Lease, from: number, to: number): void {
    const { partition } = lease.range
    const end = Math.min(to, lease.range.to)
    for (let offset = Math.max(from, lease.range.from); offset < end; offset++) {
      if (!lease.settle(offset)) continue
      this.#subscription.steps.forget({ partition, offset })
      if (lease.row) this.removeRow(lease.row)
    }
  }

  #except(lease: Lease, exception: SettledException): void {
    const { partition } = lease.range
    const { offset, kind } = exception
    const run = { partition, from: offset, to: offset + 1 }
    if (kind === 'release') {
      this.#subscription.giveBack(lease, run, lease.history.crashes)
      this.#subscription.holdReturned([lease])
    } else if (kind === 'dead') this.#bury(lease, offset, exception)
    else this.#setAside(lease, exception)
  }

  #setAside(lease: Lease, exception: SetAsideException): void {
    const { rows, chains, ordered } = this.#subscription
    const { partition } = lease.range
    const { offset } = exception
    const key = lease.row?.key ?? exception.key
    const history = exception.kind === 'retry' ? nextAttempt(lease.history, exception.failure) : lease.history
    const wait =
      exception.kind === 'retry' ? until(exception.dueAtMs) : this.#parkedWait({ partition, offset }, key, exception)
    const status = exception.kind === 'retry' || wait.for === 'grant' ? 'retrying' : 'parked'
    const failedUnder = exception.kind === 'retry' ? lease.id : undefined
    const row = lease.row ?? { partition, offset, key, history, wait, status, isLeased: false, failedUnder }
    row.history = history
    row.failedUnder = failedUnder
    if (lease.row) rows.wait(row, wait, status)
    else rows.add(row)
    if (ordered && wait.for === 'time') chains.holdBehind(partition, key, offset)
  }

  // Without order, or without a key, there is nothing to wait for and nobody to say that it is over.
  #parkedWait(
    place: MessagePlace,
    key: string | undefined,
    { until: end }: Extract<SettledException, { kind: 'park' }>,
  ): Wait {
    const { ordered, chains } = this.#subscription
    if (typeof end === 'number') return until(end)
    const waits = end === 'freed' || (key !== undefined && chains.hasPredecessor(place.partition, key, place.offset))
    return ordered && key !== undefined && waits ? { for: 'turn' } : { for: 'grant', dueAtMs: this.#nowMs }
  }

  #cancelLeased(lease: Lease, offset: number): void {
    this.#endIfSettled(lease)
    lease.holder.cancelled(lease, offset)
  }

  #endIfSettled(lease: Lease): void {
    if (lease.unsettled > 0) return
    this.#subscription.leases.delete(lease.id)
    if (lease.isolated) this.#store.waiters.wakeAll()
  }

  #buryGuilty(lease: Lease, crashes: number): void {
    const { name, code, message } = new PosthornError('POSTHORN_CRASHED_REPEATEDLY', { crashes })
    const failure: Failure = { attempt: lease.history.attempt, atMs: this.#nowMs, name, code, message }
    this.#bury(lease, lease.range.from, { reason: 'crashed', failure, crashes })
  }

  #bury(lease: Lease, offset: number, { reason, failure, crashes = lease.history.crashes, ...death }: Death): void {
    const subscription = this.#subscription
    const { partition } = lease.range
    const key = lease.row?.key ?? death.key
    const blocking = death.blocks === true && key !== undefined && subscription.ordered
    const stored = this.#store.decoded.read(subscription.topic.log(partition), offset, offset + 1)[0]?.event
    const history = { ...lease.history, crashes }
    const burial = { id: this.#store.nextId(), place: { partition, offset }, reason, history, failure, key, blocking }
    subscription.bury({ ...burial, nowMs: this.#nowMs, event: lease.history.event ?? stored })
    if (blocking) subscription.chains.holdBehind(partition, key, Number.NEGATIVE_INFINITY)
    if (lease.row) this.removeRow(lease.row)
  }
}

/** Tells the holders, each once, after the change that took the leases is complete. */
export function reportLost(leases: readonly Lease[], reason: string): void {
  for (const [holder, lost] of Map.groupBy(leases, (lease) => lease.holder)) {
    const ids = lost.map((lease) => lease.id)
    queueMicrotask(() => holder.leasesLost(ids, reason))
  }
}

function nextAttempt(history: History, failure: Failure): History {
  return { ...history, attempt: history.attempt + 1, crashes: 0, failures: [...history.failures, failure] }
}

function until(dueAtMs: number): Wait {
  return { for: 'time', dueAtMs }
}
