import type { BreakerReport, LeaseId, Limit, SubscriptionRef } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { PullResult } from '../protocol.ts'
import type { SourceRow } from '../store/delivery/leases.ts'
import { toWire } from '../wire-error.ts'

export interface WaitingPull {
  readonly pull: number
  readonly messagesMax: number
  readonly bytesMax: number
}

interface AnsweredPull {
  readonly pull: number
  readonly leases: readonly LeaseId[]
}

export interface OpenSource extends SourceRow, SubscriptionRef {
  readonly number: number
  readonly limits: readonly Limit[]
  /** Leases granted to it and not known to have ended. */
  readonly leases: Set<LeaseId>
  /** Of an ordered subscription: partitions whose keys it has been told of since it owns them, and with which lease. */
  readonly announced: Map<number, LeaseId>
  /** As it was when it was last looked at. */
  ordered: boolean
  /** It owned partitions beyond its share when it was last looked at, and when it was last told so (`Clock.elapsedMs`). */
  crowded: boolean
  surplusToldAtMs: number
  /** What it last said of its breaker; undefined while that is closed. */
  breaker: BreakerReport | undefined
  /** The pull that waits, if any. */
  pull: WaitingPull | undefined
  /** The pull that was answered last. */
  answered: AnsweredPull | undefined
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

  /** Takes back what a pull was granted that was given up before anybody saw it, and what its grants told. */
  takeUnseen(source: OpenSource, pull: number): readonly LeaseId[] {
    const { answered, announced } = source
    if (answered?.pull !== pull) return []
    source.answered = undefined
    const unseen = new Set(answered.leases)
    for (const [partition, lease] of announced) if (unseen.has(lease)) announced.delete(partition)
    return answered.leases
  }

  anyWaiting(): boolean {
    for (const source of this.#open.values()) if (source.pull) return true
    return false
  }

  anyCrowded(): boolean {
    for (const source of this.#open.values()) if (source.crowded) return true
    return false
  }

  /** The session ended, and with it the ownership of partitions. */
  disownAll(): void {
    for (const source of this.#open.values()) source.announced.clear()
  }

  holderOf(lease: LeaseId): OpenSource | undefined {
    for (const source of this.#open.values()) if (source.leases.has(lease)) return source
    return undefined
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
}

function notFound({ topic, subscription }: SubscriptionRef): PosthornError {
  return new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
}
