import type { Clock } from '../../../environment/index.ts'
import type { SurplusPartitions } from '../protocol.ts'
import type { PlannedGrant } from '../store/delivery/leases.ts'
import type { Demand } from '../store/delivery/leasing.ts'
import type { Owner } from '../store/order/ownership.ts'
import type { Store } from '../store/store.ts'
import type { Session } from './session.ts'
import type { OpenSource, Sources, WaitingPull } from './sources.ts'

export interface Granted {
  readonly plans: Map<OpenSource, readonly PlannedGrant[]>
  /** Sources whose subscription is gone while a pull waits. */
  readonly orphaned: OpenSource[]
  readonly surplus: SurplusPartitions[]
  /** Partitions were given up, which other processes may be waiting for. */
  gaveUp: boolean
}

const SURPLUS_INTERVAL_MS = 100

/** How a source takes part in a turn. */
type Part = 'nothing' | 'orphaned' | 'plain' | 'ordered'

/** Finds something for the pulls that wait, and keeps the partitions of ordered subscriptions shared out. */
export class Grants {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  readonly #clock: Clock

  constructor(store: Store, sources: Sources, session: Session, clock: Clock) {
    this.#clock = clock
    this.#store = store
    this.#sources = sources
    this.#session = session
  }

  /** Whether `grant` would do anything. */
  haveWork(nowMs: number): boolean {
    for (const source of this.#sources.all()) if (this.#partOf(source, nowMs) !== 'nothing') return true
    return false
  }

  /** Leases messages for the pulls of these sources, as far as they wait. */
  grant(sources: Iterable<OpenSource>, nowMs: number): Granted {
    const granted: Granted = { plans: new Map(), orphaned: [], surplus: [], gaveUp: false }
    // Leases to a session that another process has ended meanwhile would never be taken back.
    let isStored: boolean | undefined
    for (const source of sources) {
      const part = this.#partOf(source, nowMs)
      if (part === 'orphaned') granted.orphaned.push(source)
      if (part === 'orphaned' || part === 'nothing') continue
      isStored ??= this.#session.isStored()
      if (!isStored) return granted
      const plan = part === 'plain' ? this.#grantPlain(source, nowMs) : this.#grantOrdered(source, granted, nowMs)
      if (plan.length > 0) granted.plans.set(source, plan)
    }
    return granted
  }

  #partOf(source: OpenSource, nowMs: number): Part {
    if (source.closing) return 'nothing'
    if (!source.pull) return this.#isCrowded(source) ? 'ordered' : 'nothing'
    const work = this.#store.subscriptionRows.work(source.subscriptionId, nowMs)
    if (!work) return 'orphaned'
    source.ordered = work.ordered === 1
    if (work.ordered === 0) return work.found === 1 ? 'plain' : 'nothing'
    return work.paused === 0 && this.#hasOrderedWork(source, work.room === 1, nowMs) ? 'ordered' : 'nothing'
  }

  #hasOrderedWork(source: OpenSource, room: boolean, nowMs: number): boolean {
    const owner = this.#ownerOf(source)
    const { ownership } = this.#store
    if (ownership.isUnbalanced(owner)) return true
    return ownership.active(owner).some((partition) => ownership.hasWork(owner, partition, room, nowMs))
  }

  // Busy with what it has, a source does not pull; others may be waiting for a part of its partitions all the same.
  #isCrowded(source: OpenSource): boolean {
    return source.ordered && this.#store.ownership.surplus(this.#ownerOf(source)).length > 0
  }

  #grantPlain(source: OpenSource, nowMs: number): readonly PlannedGrant[] {
    return this.#store.granting.grant(this.#demandOf(source, source.pull!, nowMs))
  }

  #grantOrdered(source: OpenSource, granted: Granted, nowMs: number): readonly PlannedGrant[] {
    const { ownership, orderedGranting } = this.#store
    const owner = this.#ownerOf(source)
    const { gaveUp, took } = ownership.balance(owner, nowMs)
    if (gaveUp.length > 0) granted.gaveUp = true
    // What has been somebody else's in between is new to its owner. What was surplus for a while has not changed hands.
    for (const partition of [...gaveUp, ...took]) source.announced.delete(partition)
    this.#tellSurplus(source, ownership.surplus(owner), granted)
    if (!source.pull) return []
    return orderedGranting.grant(this.#demandOf(source, source.pull, nowMs), owner, source.announced)
  }

  // With held time whenever there is a turn.
  #tellSurplus(source: OpenSource, partitions: readonly number[], { surplus }: Granted): void {
    source.crowded = partitions.length > 0
    const nowMs = this.#clock.elapsedMs()
    if (!source.crowded || (this.#clock.real && nowMs < source.surplusToldAtMs + SURPLUS_INTERVAL_MS)) return
    source.surplusToldAtMs = nowMs
    surplus.push({ source: source.number, partitions })
  }

  #demandOf(source: OpenSource, { messagesMax, bytesMax }: WaitingPull, nowMs: number): Demand {
    return { source, sessionId: this.#session.id, messagesMax, bytesMax, nowMs }
  }

  #ownerOf({ subscriptionId, topicId, number, partitions }: OpenSource): Owner {
    return { subscriptionId, topicId, sessionId: this.#session.id, source: number, partitions }
  }
}
