import type { LeaseId } from '../../engine.ts'
import { type Lease, messagesIn } from './delivery/lease.ts'
import type { Turn } from './delivery/turns.ts'
import { normalized, runsOf, subtract } from './settlement/runs.ts'

/** What a source holds under a lease. */
export interface HeldLease {
  readonly partition: number
  readonly open: readonly number[]
  readonly isolated: boolean
}

/** Offsets that a source held, and that its turns did not settle. */
export interface MissingOffsets {
  readonly lease: LeaseId
  readonly partition: number
  readonly offsets: readonly number[]
  /** Nothing of the lease is left. */
  readonly isOver: boolean
}

/** Offsets that the state says the source holds. */
export interface UnknownOffsets {
  readonly lease: LeaseId
  readonly offsets: readonly number[]
}

/** What a settlement that crossed a cancellation may still name. */
const ENDED_MAX = 1_000

/** What a source knows of its leases: what it held when its last turn ended, and what has become of others. */
export class HeldLeases {
  #held: ReadonlyMap<LeaseId, HeldLease> = new Map()
  /** As work of a turn that is not committed yet has left it, which the next work of the same turn finds. */
  #inTurn: { readonly state: Turn['state']; readonly held: ReadonlyMap<LeaseId, HeldLease> } | undefined
  /** Messages whose transactions are under way, or settled by one since the last turn. */
  readonly #inTransactions = new Map<LeaseId, Set<number>>()
  /** Leases that a cancellation ended, and their partitions. */
  readonly #ended = new Map<LeaseId, number>()
  /** The newest that was ever held. */
  #newest = 0

  get isEmpty(): boolean {
    return this.#held.size === 0
  }

  get anyIsolated(): boolean {
    return [...this.#held.values()].some(({ isolated }) => isolated)
  }

  /** No lease is to be called again what one was that was held: after a failover the state may not know of it. */
  passOver({ state }: Turn): void {
    state.passOver(this.#newest)
  }

  has(lease: LeaseId): boolean {
    return this.#held.has(lease)
  }

  /** What was held when the last work of the turn, or else the last turn, had ended. */
  in({ state }: Turn): ReadonlyMap<LeaseId, HeldLease> {
    return this.#inTurn?.state === state ? this.#inTurn.held : this.#held
  }

  /** Forgets all, and says what was held. */
  lose(): LeaseId[] {
    const leases = [...this.#held.keys()]
    this.#held = new Map()
    this.#inTurn = undefined
    this.#ended.clear()
    return leases
  }

  /** What the source holds at the end of a turn; to be given to `replace` once that is committed. */
  take({ state }: Turn, source: string): ReadonlyMap<LeaseId, HeldLease> {
    const held = new Map<LeaseId, HeldLease>()
    for (const lease of state.leases.values()) {
      if (lease.source === source) held.set(lease.id, { ...lease, open: this.#withoutTransactions(lease) })
    }
    this.#inTurn = { state, held }
    return held
  }

  replace(held: ReadonlyMap<LeaseId, HeldLease>): void {
    this.#held = held
    for (const lease of held.keys()) this.#newest = Math.max(this.#newest, lease)
    if (this.#inTurn?.held === held) this.#inTurn = undefined
  }

  delete(lease: LeaseId): void {
    this.#change(lease, undefined)
  }

  /** What the state does not have any more of what was held. */
  *missing(turn: Turn, source: string): Generator<MissingOffsets> {
    for (const [lease, { partition, open }] of this.in(turn)) {
      const left = turn.state.heldBy(source, lease)?.open ?? []
      const gone = subtract(open, left)
      const settling = this.#inTransactions.get(lease)
      const offsets = offsetsIn(gone).filter((offset) => !settling?.has(offset))
      if (offsets.length > 0) yield { lease, partition, offsets, isOver: left.length === 0 }
    }
  }

  /** What the state has, and the source knows nothing of, or has settled. */
  *unknown(turn: Turn, source: string): Generator<UnknownOffsets> {
    const known = this.in(turn)
    for (const lease of turn.state.leases.values()) {
      if (lease.source !== source) continue
      const offsets = offsetsIn(subtract(this.#withoutTransactions(lease), known.get(lease.id)?.open ?? []))
      if (offsets.length > 0) yield { lease: lease.id, offsets }
    }
  }

  beginTransaction(lease: LeaseId, offset: number): void {
    const offsets = this.#inTransactions.get(lease) ?? new Set<number>()
    this.#inTransactions.set(lease, offsets.add(offset))
  }

  /** `settled`: it was committed. */
  endTransaction(lease: LeaseId, offset: number, settled: boolean): void {
    const offsets = this.#inTransactions.get(lease)
    offsets?.delete(offset)
    if (offsets?.size === 0) this.#inTransactions.delete(lease)
    const held = this.#held.get(lease)
    if (!held) return
    const message = [offset, offset + 1]
    const open = settled ? subtract(held.open, message) : normalized([...held.open, ...message])
    this.#change(lease, messagesIn(open) === 0 ? undefined : { ...held, open })
  }

  noteEnded(lease: LeaseId, partition: number): void {
    this.#ended.set(lease, partition)
    if (this.#ended.size > ENDED_MAX) this.#ended.delete(this.#ended.keys().next().value!)
  }

  /** The partition of a lease that a cancellation ended. */
  endedIn(lease: LeaseId): number | undefined {
    return this.#ended.get(lease)
  }

  forgetEnded(lease: LeaseId): void {
    this.#ended.delete(lease)
  }

  #change(lease: LeaseId, changed: HeldLease | undefined): void {
    const held = new Map(this.#held)
    if (changed) held.set(lease, changed)
    else held.delete(lease)
    this.#held = held
  }

  #withoutTransactions({ id, open }: Lease): readonly number[] {
    return subtract(open, runsOf([...(this.#inTransactions.get(id) ?? [])]))
  }
}

function offsetsIn(ranges: readonly number[]): number[] {
  const offsets: number[] = []
  for (let place = 0; place < ranges.length; place += 2) {
    for (let offset = ranges[place]!; offset < ranges[place + 1]!; offset++) offsets.push(offset)
  }
  return offsets
}
