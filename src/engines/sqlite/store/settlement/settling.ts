import type { Failure, LeaseId, SettledException, Settlement } from '../../../../engine.ts'
import { bitsOf, type LeaseRow, type LeaseRows, type SourceRow } from '../delivery/leases.ts'
import { SettledBits } from '../delivery/settled-bits.ts'
import type { Chains } from '../order/chains.ts'
import type { Exceptions, RetryRow } from './exceptions.ts'
import type { Steps } from './steps.ts'

/** `fenced`: nothing was recorded, because the lease is not or no longer the session's. */
export type SettleOutcome = 'open' | 'ended' | 'fenced'

/** Records what became of messages. The only way by which a leased message ends. */
export class Settling {
  readonly #rows: LeaseRows
  readonly #exceptions: Exceptions
  readonly #chains: Chains
  readonly #steps: Steps

  constructor(rows: LeaseRows, exceptions: Exceptions, chains: Chains, steps: Steps) {
    this.#rows = rows
    this.#exceptions = exceptions
    this.#chains = chains
    this.#steps = steps
  }

  /** Records what became of a lease's messages, and says whether that was all of them. */
  settle(source: SourceRow, sessionId: number, settlement: Settlement, nowMs: number): SettleOutcome {
    const { lease, acked, exceptions } = settlement
    const plain = exceptions.length === 0 && acked.length === 2 && !settlement.freed && !settlement.stepped
    if (plain && this.#rows.deleteWhole(lease, sessionId, acked[0]!, acked[1]!)) return 'ended'
    const row = this.#rows.find(lease, sessionId)
    const retry = row ? undefined : this.#exceptions.leased(lease, sessionId)
    const place = row ?? retry
    if (!place) return 'fenced'
    const outcome = row
      ? this.#settleRange(source, row, settlement, nowMs)
      : this.#settleRetry(source, retry!, settlement, nowMs)
    this.settleRest(place.subscriptionId, place.partition, settlement, nowMs)
    return outcome
  }

  /** What a settlement says beside of what became of messages, which is true even if a cancellation ended its lease. */
  settleRest(subscriptionId: number, partition: number, { freed, stepped }: Settlement, nowMs: number): void {
    if (stepped) this.#steps.forget(subscriptionId, partition, stepped)
    for (const key of freed ?? []) this.#chains.advance({ subscriptionId, partition, key }, nowMs)
  }

  /** Settles offsets that cannot be read as dead letters without content. */
  buryDamaged(
    source: SourceRow,
    lease: LeaseId,
    sessionId: number,
    from: number,
    to: number,
    failure: Failure,
    nowMs: number,
  ): void {
    const exceptions: SettledException[] = []
    for (let offset = from; offset < to; offset++) exceptions.push({ offset, kind: 'dead', reason: 'damaged', failure })
    this.settle(source, sessionId, { lease, acked: [], exceptions }, nowMs)
  }

  #settleRange(source: SourceRow, row: LeaseRow, settlement: Settlement, nowMs: number): SettleOutcome {
    const bits = bitsOf(row)
    for (let place = 0; place < settlement.acked.length; place += 2) {
      bits.settleRange(settlement.acked[place]!, settlement.acked[place + 1]!)
    }
    const released: number[] = []
    for (const exception of settlement.exceptions) {
      if (!bits.settle(exception.offset)) continue
      if (exception.kind === 'release') released.push(exception.offset)
      else this.#except(source, row, exception, nowMs)
    }
    this.#release(row, released)
    return this.#rows.update(row, bits) ? 'open' : 'ended'
  }

  // A consumer that closes gives back all that it has not begun: one row for each run, not for each message.
  #release(row: LeaseRow, offsets: readonly number[]): void {
    const runs: { from: number; to: number }[] = []
    for (const offset of offsets.toSorted((one, other) => one - other)) {
      const last = runs.at(-1)
      if (last?.to === offset) last.to++
      else runs.push({ from: offset, to: offset + 1 })
    }
    for (const { from, to } of runs) this.#rows.insertReturned(row, new SettledBits(from, to, null))
  }

  #except(
    source: SourceRow,
    row: LeaseRow,
    exception: Exclude<SettledException, { kind: 'release' }>,
    nowMs: number,
  ): void {
    const { offset, key } = exception
    const { subscriptionId, partition, crashes } = row
    const place = { subscriptionId, partition, offset, crashes, key }
    if (exception.kind === 'retry') {
      this.#exceptions.retry(place, exception.dueAtMs, exception.failure, row.leaseId)
    } else if (exception.kind === 'park') {
      this.#exceptions.park(place, exception.until, nowMs)
    } else {
      const { reason, failure, blocks } = exception
      const { topicId } = source
      this.#exceptions.bury({ ...place, topicId, reason, attempts: 1, failures: [failure], blocks }, nowMs)
    }
  }

  #settleRetry(source: SourceRow, row: RetryRow, settlement: Settlement, nowMs: number): SettleOutcome {
    const exception = settlement.exceptions.find(({ offset }) => offset === row.offset)
    if (!exception) {
      if (!covers(settlement.acked, row.offset)) return 'open'
      this.#exceptions.settleForGood(row, nowMs)
    } else if (exception.kind === 'release') {
      this.#exceptions.release(row)
    } else if (exception.kind === 'retry') {
      this.#exceptions.retryAgain(row, exception.dueAtMs, exception.failure)
    } else if (exception.kind === 'park') {
      this.#exceptions.parkAgain(row, exception.until, nowMs)
    } else {
      const { reason, failure, blocks } = exception
      this.#exceptions.buryRetry(row, { topicId: source.topicId, reason, blocks }, failure, nowMs)
    }
    return 'ended'
  }
}

function covers(acked: readonly number[], offset: number): boolean {
  for (let place = 0; place < acked.length; place += 2) {
    if (acked[place]! <= offset && offset < acked[place + 1]!) return true
  }
  return false
}
