import type { LeaseId, SubscriptionRef } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { PullResult } from '../protocol.ts'
import type { SourceRow } from '../store/leases.ts'
import type { Store } from '../store/store.ts'
import { toWire } from '../wire-error.ts'

export interface OpenSource extends SourceRow, SubscriptionRef {
  readonly number: number
  readonly partitions: number
  /** Leases granted to it and not known to have ended. */
  readonly leases: Set<LeaseId>
  /** The pull that waits, if any. */
  pull: { readonly messagesMax: number; readonly bytesMax: number } | undefined
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

  remove(number: number): void {
    this.#open.delete(number)
  }

  /** Whether any waiting pull would find something. */
  haveWork(store: Store, nowMs: number): boolean {
    return this.waiting(store, nowMs).length > 0
  }

  /** The sources whose waiting pull would find something. A pull on a deleted subscription fails. */
  waiting(store: Store, nowMs: number): OpenSource[] {
    const found: OpenSource[] = []
    for (const source of this.#open.values()) {
      if (!source.pull) continue
      const hasWork = store.subscriptionRows.hasWork(source.subscriptionId, nowMs)
      if (hasWork) found.push(source)
      else if (hasWork === undefined) this.#fail(source, notFound(source))
    }
    return found
  }

  /** All leases of all sources are void: takes them from the sources. */
  takeLeases(): { source: number; leases: LeaseId[] }[] {
    const taken = [...this.#open.values()].map(({ number, leases }) => ({ source: number, leases: [...leases] }))
    for (const { leases } of this.#open.values()) leases.clear()
    return taken.filter(({ leases }) => leases.length > 0)
  }

  failWaiting(error: PosthornError): void {
    for (const source of this.#open.values()) if (source.pull) this.#fail(source, error)
  }

  takeFailures(): PullResult[] {
    const failures = this.#failures
    this.#failures = []
    return failures
  }

  #fail(source: OpenSource, error: PosthornError): void {
    source.pull = undefined
    this.#failures.push({ source: source.number, error: toWire(error) })
  }
}

function notFound({ topic, subscription }: SubscriptionRef): PosthornError {
  return new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
}
