import type { LeaseId, SubscriptionRef } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { PullResult } from '../protocol.ts'
import type { SourceRow } from '../store/leases.ts'
import type { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'

export interface WaitingPull {
  readonly pull: number
  readonly messagesMax: number
  readonly bytesMax: number
}

export interface OpenSource extends SourceRow, SubscriptionRef {
  readonly number: number
  readonly partitions: number
  /** Leases granted to it and not known to have ended. */
  readonly leases: Set<LeaseId>
  /** The pull that waits, if any. */
  pull: WaitingPull | undefined
  /** Closed by its user, and forgotten once its leases are given back. */
  closing: boolean
}

/** The sources that this process has open, and their waiting pulls. */
export class Sources {
  readonly #open = new Map<number, OpenSource>()
  #failures: PullResult[] = []

  get size(): number {
    return this.#open.size
  }

  all(): Iterable<OpenSource> {
    return this.#open.values()
  }

  get(number: number): OpenSource | undefined {
    return this.#open.get(number)
  }

  add(source: OpenSource): void {
    this.#open.set(source.number, source)
  }

  /** Marks a source as closing. Returns it, if it is there. */
  close(number: number): OpenSource | undefined {
    const source = this.#open.get(number)
    if (!source) return undefined
    source.pull = undefined
    source.closing = true
    return source
  }

  *closing(): Generator<OpenSource, void> {
    for (const source of this.#open.values()) if (source.closing) yield source
  }

  remove(number: number): void {
    this.#open.delete(number)
  }

  /** Whether any waiting pull would find something. */
  haveWork(store: Store, nowMs: number): boolean {
    const { found, orphaned } = this.waiting(store, nowMs)
    return found.length + orphaned.length > 0
  }

  anyWaiting(): boolean {
    for (const source of this.#open.values()) if (source.pull) return true
    return false
  }

  /** The sources whose waiting pull would find something, and those whose subscription is gone. */
  waiting(store: Store, nowMs: number): { found: OpenSource[]; orphaned: OpenSource[] } {
    const found: OpenSource[] = []
    const orphaned: OpenSource[] = []
    for (const source of this.#open.values()) {
      if (!source.pull) continue
      const hasWork = store.subscriptionRows.hasWork(source.subscriptionId, nowMs)
      if (hasWork) found.push(source)
      else if (hasWork === undefined) orphaned.push(source)
    }
    return { found, orphaned }
  }

  /** Takes leases that are void from the sources: all of them, or those that `isVoid`. */
  takeLeases(isVoid: (lease: LeaseId) => boolean = () => true): { source: number; leases: LeaseId[] }[] {
    const taken: { source: number; leases: LeaseId[] }[] = []
    for (const source of this.#open.values()) {
      const leases = [...source.leases].filter(isVoid)
      for (const lease of leases) source.leases.delete(lease)
      if (leases.length > 0) taken.push({ source: source.number, leases })
    }
    return taken
  }

  failWaiting(error: PosthornError): void {
    for (const source of this.#open.values()) this.fail(source, error)
  }

  takeFailures(): PullResult[] {
    const failures = this.#failures
    this.#failures = []
    return failures
  }

  /** Rejects the source's pull, if one waits. */
  fail(source: OpenSource, error: PosthornError): void {
    if (!source.pull) return
    this.#failures.push({ source: source.number, pull: source.pull.pull, error: toWire(error) })
    source.pull = undefined
  }

  failOrphaned(source: OpenSource): void {
    this.fail(source, notFound(source))
  }

  /** Whether another source of this process reads the same subscription. */
  hasTwin({ number, subscriptionId }: OpenSource): boolean {
    for (const other of this.#open.values()) {
      if (!other.closing && other.number !== number && other.subscriptionId === subscriptionId) return true
    }
    return false
  }
}

function notFound({ topic, subscription }: SubscriptionRef): PosthornError {
  return new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
}
