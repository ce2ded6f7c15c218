/**
 * The turns of one source. Each begins by comparing what the state says of the source's leases with what the turn before
 * had left: what is missing was taken by somebody else, and is said to be cancelled or lost. It ends with taking down
 * what is held then.
 *
 * States of the source: enlisted in the subscription's state under the name of its session; not enlisted, from when its
 * session is lost until the next turn; closed, when it takes part no more, and nobody is told of anything.
 */
import type { LeaseId, Settlement, SourceOptions } from '../../engine.ts'
import type { Timer } from '../../environment/index.ts'
import { sessionOf } from './consumers/source-name.ts'
import type { Core } from './core.ts'
import { contains } from './delivery/lease.ts'
import { Ownership } from './delivery/ownership.ts'
import type { SubscriptionKey, Turn } from './delivery/turns.ts'
import { HeldLeases, type MissingOffsets } from './held-leases.ts'
import { normalized } from './settlement/runs.ts'
import * as sql from './sql/turns.ts'

const SURPLUS_INTERVAL_MS = 100

export type SourceKey = SubscriptionKey & { readonly topicId: number }

/** Whom the source tells of what others do to it. */
type Listener = Pick<SourceOptions, 'onCancelled' | 'onLeasesLost' | 'onSurplus'>

export class SourceTurns {
  readonly leases = new HeldLeases()
  /** Offsets, as ranges, that were settled under leases without it being known whether that was recorded. */
  readonly uncertain = new Map<LeaseId, readonly number[]>()
  /** The state may have messages leased that the source does not know of: nobody told it, or they were settled once. */
  strays = false
  /** Partitions that such a turn may have taken over: nobody was told which keys have chains. */
  readonly untold = new Set<number>()
  readonly #core: Core
  readonly #key: SourceKey
  readonly #number: number
  readonly #listener: Listener
  readonly #closed: AbortSignal
  /** Under which leases are held: another one means that the session was lost. */
  #name: string
  #quiet: Timer | undefined
  #checking = false

  constructor(core: Core, key: SourceKey, number: number, listener: Listener, closed: AbortSignal) {
    this.#core = core
    this.#key = key
    this.#number = number
    this.#listener = listener
    this.#closed = closed
    this.#name = this.#currentName()
    closed.addEventListener('abort', () => this.#quiet?.cancel())
  }

  /** What the state calls it: `session/number`. */
  get name(): string {
    return this.#name
  }

  /** It is not known whether this was recorded. */
  noteUncertain({ lease, acked, exceptions }: Settlement): void {
    if (!this.leases.has(lease)) return
    const offsets = exceptions.flatMap(({ offset }) => [offset, offset + 1])
    this.uncertain.set(lease, normalized([...(this.uncertain.get(lease) ?? []), ...acked, ...offsets]))
  }

  /** The session is lost, and everything that it held. */
  sessionLost(reason: string): void {
    const leases = this.leases.lose()
    this.uncertain.clear()
    this.#tell(() => this.#listener.onLeasesLost(leases, reason), leases.length > 0)
  }

  /** Something of the subscription was changed by others: looks at what became of the leases, and of its partitions. */
  check(): void {
    if (this.#checking || this.#closed.aborted || this.leases.isEmpty) return
    this.#checking = true
    const done = () => {
      this.#checking = false
    }
    this.#core.turns.run(this.#key, (turn) => this.#checkIn(turn)).then(done, done)
  }

  /** Runs work in a turn, which begins with a look at the leases, and ends with taking down what is held now. */
  async run<Value>(operation: string, work: (turn: Turn) => Promise<Value>): Promise<Value> {
    for (;;) {
      this.#core.requireOpen(operation)
      await this.#core.caughtUp()
      const done = await this.#runOnce(work)
      if (done !== 'not enlisted') return done.value
      // Its session was lost: the next one takes its place.
      await this.#core.session.check()
    }
  }

  #runOnce<Value>(work: (turn: Turn) => Promise<Value>): Promise<'not enlisted' | { readonly value: Value }> {
    return this.#core.turns.run(this.#key, async (turn) => {
      const isOpen = !this.#closed.aborted
      if (isOpen && !(await this.#enlistIn(turn))) return 'not enlisted'
      this.leases.passOver(turn)
      await this.#noticeLosses(turn)
      await this.releaseStrays(turn)
      const value = await work(turn)
      this.noteHeld(turn)
      return { value }
    })
  }

  #currentName(): string {
    return `${this.#core.session.id}/${this.#number}`
  }

  // Whoever was given up, and has not been told yet, is not to take part again with a mere look.
  async #checkIn(turn: Turn): Promise<void> {
    if (this.#currentName() !== this.#name || !turn.state.sources.includes(this.#name)) return
    await this.#noticeLosses(turn)
    await this.releaseStrays(turn)
    this.shareOut(turn)
    this.noteHeld(turn)
  }

  /** To be called when strays have been released, or they would be taken for what the source knows of. */
  noteHeld(turn: Turn): void {
    const held = this.leases.take(turn, this.#name)
    turn.afterwards(() => {
      const hadSuspect = this.leases.anyIsolated
      this.leases.replace(held)
      // Other subscriptions of this engine may have one now.
      if (hadSuspect && !this.leases.anyIsolated) this.#core.wakes.all()
    })
  }

  /** Says whether its session is there to hold anything. */
  async #enlistIn({ state, rows }: Turn): Promise<boolean> {
    const name = this.#currentName()
    if (name !== this.#name) {
      this.sessionLost('its session ran out')
      this.#name = name
    }
    if (state.sources.includes(name)) return true
    if (!(await this.#core.session.isStored(rows, sessionOf(name)))) return false
    state.sources.push(name)
    return true
  }

  async #noticeLosses(turn: Turn): Promise<void> {
    const lost: LeaseId[] = []
    for (const missing of this.leases.missing(turn, this.#name)) {
      const { lease, partition, isOver } = missing
      // What was settled after all, the next settlement is to find.
      const settled = this.uncertain.get(lease) ?? []
      const offsets = missing.offsets.filter((offset) => !contains(settled, offset))
      if (offsets.length === 0) continue
      const cancelled = await this.#cancelledOf(turn, { ...missing, offsets })
      for (const offset of cancelled) this.#tell(() => this.#listener.onCancelled(lease, offset))
      if (isOver && cancelled.length === offsets.length) this.leases.noteEnded(lease, partition)
      else if (isOver) lost.push(lease)
    }
    for (const lease of lost) this.#forget(lease)
    const reason = 'the subscription was moved, or its topic was purged'
    this.#tell(() => this.#listener.onLeasesLost(lost, reason), lost.length > 0)
  }

  #forget(lease: LeaseId): void {
    this.leases.delete(lease)
    this.uncertain.delete(lease)
  }

  async #cancelledOf({ rows, subscription }: Turn, { partition, offsets }: MissingOffsets): Promise<number[]> {
    if (!subscription.hasCancelled) return []
    const [from, to] = [offsets[0]!, offsets.at(-1)! + 1]
    const values = [subscription.topicId, partition, from, to]
    const found = await rows.rows<{ offset: number }>(sql.turns.cancelledBetween, ...values)
    const cancelled = new Set(found.map(({ offset }) => offset))
    return offsets.filter((offset) => cancelled.has(offset))
  }

  /** Gives back what a turn leased whose outcome nobody knew, and what a failover has brought back. */
  async releaseStrays(turn: Turn): Promise<void> {
    if (!this.strays) return
    const settlements = Array.from(this.leases.unknown(turn, this.#name), ({ lease, offsets }) => {
      const exceptions = offsets.map((offset) => ({ offset, kind: 'release' }) as const)
      return { lease, acked: [], exceptions }
    })
    await this.#core.settling.settle(turn, this.#name, settlements)
    this.announceAgain(turn, this.untold)
    turn.afterwards(() => {
      this.strays = false
      this.untold.clear()
    })
  }

  /** With the next grant of these partitions it is to be said which keys have chains. */
  announceAgain({ state }: Turn, partitions: Iterable<number>): void {
    for (const partition of partitions) {
      const owner = state.owners.get(partition)
      if (owner?.source === this.#name) owner.announced = false
    }
  }

  /** Gives up what is beyond its share, as far as it is free, and asks for the rest to be released. */
  shareOut(turn: Turn): void {
    const { subscription, state } = turn
    if (!subscription.ordered) return
    const ownership = new Ownership(state, subscription.partitions)
    if (ownership.giveUpSurplus().length > 0) turn.afterwards(() => this.#core.changed(this.#key))
    const { surplus } = ownership.holding(this.#name)
    if (surplus.length > 0) turn.afterwards(() => this.#tellSurplus(surplus))
  }

  // With real time, at most ten times a second, and again as long as it is so.
  #tellSurplus(partitions: readonly number[]): void {
    if (this.#quiet !== undefined) return
    const { clock } = this.#core
    if (clock.real) {
      this.#quiet = clock.setTimer(SURPLUS_INTERVAL_MS, () => {
        this.#quiet = undefined
        this.check()
      })
    }
    this.#tell(() => this.#listener.onSurplus(partitions))
  }

  #tell(say: () => void, isNews = true): void {
    if (!isNews) return
    queueMicrotask(() => {
      if (!this.#closed.aborted) say()
    })
  }
}
