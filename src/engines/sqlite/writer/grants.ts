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

interface Look {
  readonly part: Part
  /** New messages may be granted. */
  readonly room: boolean
}

const NOTHING: Look = { part: 'nothing', room: false }

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
    for (const source of this.#sources.all()) if (this.#hasWork(source, nowMs)) return true
    return false
  }

  /** Leases messages for the pulls of these sources, as far as they wait. */
  grant(sources: Iterable<OpenSource>, nowMs: number): Granted {
    const granted: Granted = { plans: new Map(), orphaned: [], surplus: [], gaveUp: false }
    // Leases to a session that another process has ended meanwhile would never be taken back.
    let isStored: boolean | undefined
    for (const source of sources) {
      const { part } = this.#lookAt(source, nowMs)
      if (part === 'orphaned') granted.orphaned.push(source)
      if (part === 'orphaned' || part === 'nothing') continue
      isStored ??= this.#session.isStored()
      if (!isStored) return granted
      const plan = part === 'plain' ? this.#grantPlain(source, nowMs) : this.#grantOrdered(source, granted, nowMs)
      if (plan.length > 0) granted.plans.set(source, plan)
    }
    return granted
  }

  #hasWork(source: OpenSource, nowMs: number): boolean {
    const { part, room } = this.#lookAt(source, nowMs)
    return part === 'ordered' ? this.#hasOrderedWork(source, room, nowMs) : part !== 'nothing'
  }

  // Busy with what it has, a source does not pull; others may be waiting for a part of its partitions all the same.
  #lookAt(source: OpenSource, nowMs: number): Look {
    if (source.closing) return NOTHING
    if (!source.pull) return { part: source.ordered ? 'ordered' : 'nothing', room: false }
    const work = this.#store.subscriptionRows.work(source.subscriptionId, nowMs)
    if (!work) return { part: 'orphaned', room: false }
    source.ordered = work.ordered === 1
    if (work.ordered === 0) return { part: work.found === 1 ? 'plain' : 'nothing', room: true }
    return work.paused === 1 ? NOTHING : { part: 'ordered', room: work.room === 1 }
  }

  #hasOrderedWork(source: OpenSource, room: boolean, nowMs: number): boolean {
    const { ownership } = this.#store
    const owner = this.#ownerOf(source)
    const holding = ownership.holding(owner)
    if (!source.pull) return holding.surplus.length > 0
    if (ownership.isUnbalanced(owner, holding)) return true
    const active = new Set(holding.active)
    return ownership.work(owner, nowMs).some(({ partition, returned, setAside, cursor, head }) => {
      return active.has(partition) && (returned === 1 || setAside === 1 || (room && cursor < head))
    })
  }

  #grantPlain(source: OpenSource, nowMs: number): readonly PlannedGrant[] {
    return this.#store.granting.grant(this.#demandOf(source, source.pull!, nowMs))
  }

  #grantOrdered(source: OpenSource, granted: Granted, nowMs: number): readonly PlannedGrant[] {
    const { ownership, orderedGranting } = this.#store
    const owner = this.#ownerOf(source)
    const found = ownership.holding(owner)
    if (!source.pull && found.surplus.length === 0) {
      source.crowded = false
      return []
    }
    const { gaveUp, took, holding } = ownership.balance(owner, found, nowMs)
    if (gaveUp.length > 0) granted.gaveUp = true
    // What has been somebody else's in between is new to its owner. What was surplus for a while has not changed hands.
    for (const partition of [...gaveUp, ...took]) source.announced.delete(partition)
    this.#tellSurplus(source, holding.surplus, granted)
    if (!source.pull) return []
    const demand = this.#demandOf(source, source.pull, nowMs)
    return orderedGranting.grant(demand, holding.active, ownership.work(owner, nowMs), source.announced)
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
