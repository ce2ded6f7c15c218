import type { Grant, LeaseId, SourceOptions } from '../../engine.ts'
import type { PosthornError } from '../../errors.ts'
import { DecodedBatches } from './decoded-batches.ts'
import type { PullResult, Turn, WireSourceOptions } from './protocol.ts'
import { fromWire } from './wire-error.ts'

/** What a source wants to be told. */
export interface SourceListener extends Pick<SourceOptions, 'onCancelled' | 'onLeasesLost' | 'onSurplus' | 'onDamage'> {
  /** `pull` is the number that was given to the pull. */
  onGrants(grants: readonly Grant[], pull: number): void
  /** Without a number: no pull can be answered any more. */
  onPullFailed(error: PosthornError, pull?: number): void
  /** The source could not be opened again in a new thread, and never will be: its subscription is gone. */
  onGone(error: PosthornError): void
}

/** A source that is open, and what it takes to open it again. */
interface OpenSource {
  readonly options: WireSourceOptions
  readonly listener: SourceListener
}

/** Tells the open sources what the thread has said about them. */
export class Listeners {
  readonly #sources = new Map<number, OpenSource>()
  readonly #decoded = new DecodedBatches()

  get size(): number {
    return this.#sources.size
  }

  all(): Iterable<[source: number, OpenSource]> {
    return this.#sources
  }

  add(source: number, open: OpenSource): void {
    this.#sources.set(source, open)
  }

  remove(source: number): void {
    this.#sources.delete(source)
  }

  /** In the order in which a turn is to be acted on. */
  tell({ batches, lost, grants, forget, cancelled = [], surplus = [], damaged }: Turn): void {
    this.#decoded.add(batches)
    for (const { source, leases } of lost?.held ?? [])
      this.#find(source)?.onLeasesLost(leases as LeaseId[], lost!.reason)
    for (const result of grants) this.#handOver(result)
    this.#decoded.forget(forget)
    for (const { source, lease, offset } of cancelled) this.#find(source)?.onCancelled(lease, offset)
    for (const { source, partitions } of surplus) this.#find(source)?.onSurplus(partitions)
    for (const { source, error } of damaged) this.#find(source)?.onDamage(fromWire(error))
  }

  /** What the thread has sent before means nothing to the next one, and it answers no pull any more. */
  threadEnded(failure: PosthornError): void {
    this.#decoded.clear()
    for (const { listener } of this.#sources.values()) listener.onPullFailed(failure)
  }

  /** The session went with the thread: nobody renews it, and the next one has other leases. */
  sessionEnded(reason: string): void {
    for (const { listener } of this.#sources.values()) listener.onLeasesLost('all', reason)
  }

  #handOver(result: PullResult): void {
    const listener = this.#find(result.source)
    if ('error' in result) listener?.onPullFailed(fromWire(result.error), result.pull)
    else
      listener?.onGrants(
        result.grants.map((grant) => this.#decoded.toGrant(grant)),
        result.pull,
      )
  }

  #find(source: number): SourceListener | undefined {
    return this.#sources.get(source)?.listener
  }
}
