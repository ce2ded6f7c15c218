import type { Failure } from '../../../../engine.ts'
import { PosthornError } from '../../../../errors.ts'
import type { Chains } from '../order/chains.ts'
import type { Exceptions } from '../settlement/exceptions.ts'
import { bitsOf, type LeaseRows } from './leases.ts'

/** What has to be known of a subscription when one of its leases is lost. */
interface CrashLimits {
  readonly topicId: number
  readonly maxCrashes: number
}

/** Takes leases back from those who hold them. */
export class Recall {
  readonly #rows: LeaseRows
  readonly #exceptions: Exceptions
  readonly #chains: Chains

  constructor(rows: LeaseRows, exceptions: Exceptions, chains: Chains) {
    this.#rows = rows
    this.#exceptions = exceptions
    this.#chains = chains
  }

  /** Takes back everything of a lost session; isolated messages that have crashed too often become dead letters. */
  fromLostSession(
    sessionId: number,
    limitsOf: (subscriptionId: number) => CrashLimits | undefined,
    nowMs: number,
  ): void {
    for (const row of this.#rows.ofSession(sessionId)) {
      const { subscriptionId, partition, fromOffset: offset } = row
      const limits = limitsOf(subscriptionId)
      const crashes = row.crashes + 1
      if (!limits || row.isolated === 0 || crashes < limits.maxCrashes) continue
      const { topicId } = limits
      const failures = [crashFailure(crashes, 1, nowMs)]
      const burial = {
        subscriptionId,
        topicId,
        partition,
        offset,
        reason: 'crashed',
        attempts: 1,
        crashes,
        failures,
      } as const
      this.#exceptions.bury(burial, nowMs)
      this.#rows.delete(row.leaseId)
    }
    for (const retry of this.#exceptions.leasedBySession(sessionId)) {
      const limits = limitsOf(retry.subscriptionId)
      const crashes = retry.crashes + 1
      if (!limits || retry.isolated === 0 || crashes < limits.maxCrashes) continue
      const failure = crashFailure(crashes, retry.attempt, nowMs)
      const death = { topicId: limits.topicId, reason: 'crashed' } as const
      this.#exceptions.buryRetry({ ...retry, crashes }, death, failure, nowMs)
    }
    this.#rows.returnLost(sessionId)
    this.#exceptions.returnLost(sessionId)
  }

  /**
   * Takes back leases and retries at or after `offset`; what a range holds before it waits for another holder. Keys that
   * were blocked from there on are blocked no longer.
   */
  from(subscriptionId: number, partition: number, offset: number, nowMs: number): void {
    for (const row of this.#rows.reachingBeyond(subscriptionId, partition, offset)) {
      this.#rows.delete(row.leaseId)
      if (row.fromOffset < offset) this.#rows.insertReturned(row, bitsOf(row).slice(row.fromOffset, offset))
    }
    this.#exceptions.deleteFrom(subscriptionId, partition, offset)
    this.#chains.unblockFrom(subscriptionId, partition, offset)
    this.#chains.wakeFirsts(subscriptionId, partition, nowMs)
  }

  /** Gives back a lease that the session holds; nothing is counted against its messages. */
  release(lease: number, sessionId: number): void {
    this.#rows.return(lease, sessionId)
    this.#exceptions.return(lease, sessionId)
  }

  /** Gives back all that the session holds. */
  releaseAll(sessionId: number): void {
    this.#rows.returnAll(sessionId)
    this.#exceptions.returnAll(sessionId)
  }
}

function crashFailure(crashes: number, attempt: number, atMs: number): Failure {
  const { name, message, code } = new PosthornError('POSTHORN_CRASHED_REPEATEDLY', { crashes })
  return { attempt, atMs, name, message, code }
}
