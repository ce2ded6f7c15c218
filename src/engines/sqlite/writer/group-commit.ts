/**
 * Carries the operations of one turn out in one transaction, together with the leases for the pulls that wait.
 *
 * If the transaction fails, each operation is tried again by itself, so that only the guilty one fails, and after them
 * the leases for each source; unless another connection held the file locked, which is nobody's guilt and would only be
 * met again.
 * Nothing in memory depends on a transaction that may still roll back: see `Operation.committed`.
 */
import { PosthornError } from '../../../errors.ts'
import type { CallResult, SurplusPartitions, WireError } from '../protocol.ts'
import type { PlannedGrant } from '../store/delivery/leases.ts'
import { describeFailure } from '../store/file/failure.ts'
import type { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'
import type { Grants } from './grants.ts'
import type { Operation } from './operations.ts'
import type { OpenSource, Sources } from './sources.ts'
import type { Wake } from './wake.ts'

export interface Outcome {
  readonly results: CallResult[]
  /** Results that may be told only once the file is on stable storage. */
  readonly unsynced: CallResult[]
  readonly plans: Map<OpenSource, readonly PlannedGrant[]>
  readonly surplus: SurplusPartitions[]
  /** Why an operation that nobody waits for failed. */
  trouble?: WireError
}

export class GroupCommit {
  readonly #store: Store
  readonly #sources: Sources
  readonly #grants: Grants
  readonly #wake: Wake

  constructor(store: Store, sources: Sources, grants: Grants, wake: Wake) {
    this.#store = store
    this.#sources = sources
    this.#grants = grants
    this.#wake = wake
  }

  carryOut(operations: readonly Operation[], nowMs: number): Outcome {
    const outcome: Outcome = { results: [], unsynced: [], plans: new Map(), surplus: [] }
    const transactional = operations.filter((operation) => operation.transactional)
    for (const operation of operations) if (!operation.transactional) this.#runAlone(operation, outcome)
    try {
      if (transactional.length === 0 && !this.#hasWork(nowMs)) return outcome
      this.#commit(transactional, this.#sources.all(), outcome, nowMs)
    } catch (error) {
      this.#commitSingly(transactional, outcome, this.#describe(error), nowMs)
    }
    return outcome
  }

  #hasWork(nowMs: number): boolean {
    return this.#store.connection.read(() => this.#grants.haveWork(nowMs))
  }

  #runAlone(operation: Operation, outcome: Outcome): void {
    try {
      outcome.results.push(...run(operation))
      operation.committed?.()
      if (operation.concernsOthers()) this.#wake.others()
    } catch (error) {
      this.#failed(operation, this.#describe(error), outcome)
    }
  }

  #commit(operations: readonly Operation[], granting: Iterable<OpenSource>, outcome: Outcome, nowMs: number): void {
    const { results, granted } = this.#store.connection.write(() => ({
      results: operations.map(run),
      granted: this.#grants.grant(granting, nowMs),
    }))
    for (const [index, { durable }] of operations.entries()) {
      const answers = durable ? outcome.unsynced : outcome.results
      answers.push(...results[index]!)
    }
    for (const [source, plan] of granted.plans) outcome.plans.set(source, plan)
    outcome.surplus.push(...granted.surplus)
    for (const source of granted.orphaned) this.#sources.failOrphaned(source)
    for (const operation of operations) operation.committed?.()
    if (granted.gaveUp || operations.some((operation) => operation.concernsOthers())) this.#wake.others()
  }

  #commitSingly(operations: readonly Operation[], outcome: Outcome, error: PosthornError, nowMs: number): void {
    const lockedOut = error.code === 'POSTHORN_STORAGE_BUSY'
    for (const operation of operations) {
      const failure = lockedOut ? error : this.#attempt([operation], [], outcome, nowMs)
      if (failure) this.#failed(operation, failure, outcome)
    }
    if (lockedOut) this.#sources.failWaiting(error)
    else this.#grantSingly(outcome, nowMs)
  }

  #grantSingly(outcome: Outcome, nowMs: number): void {
    let lockedOut: PosthornError | undefined
    for (const source of this.#sources.all()) {
      const failure = lockedOut ?? this.#attempt([], [source], outcome, nowMs)
      if (failure) this.#sources.fail(source, failure)
      if (failure?.code === 'POSTHORN_STORAGE_BUSY') lockedOut = failure
    }
  }

  #attempt(
    operations: readonly Operation[],
    granting: Iterable<OpenSource>,
    outcome: Outcome,
    nowMs: number,
  ): PosthornError | undefined {
    try {
      this.#commit(operations, granting, outcome, nowMs)
      return undefined
    } catch (error) {
      return this.#describe(error)
    }
  }

  #failed({ call }: Operation, failure: PosthornError, outcome: Outcome): void {
    if (call === undefined) outcome.trouble = toWire(failure)
    else outcome.results.push({ call, error: toWire(failure) })
  }

  #describe(error: unknown): PosthornError {
    return describeFailure(error, this.#store.connection.file)
  }
}

// Coded errors are thrown before anything is written: they answer the call. Anything else undoes the transaction.
function run(operation: Operation): CallResult[] {
  const { call } = operation
  try {
    const value = operation.run()
    return call === undefined ? [] : [{ call, value }]
  } catch (error) {
    if (call === undefined || !(error instanceof PosthornError)) throw error
    return [{ call, error: toWire(error) }]
  }
}
