/**
 * This process's share of a subscription. Open until it is closed, by the user or by its engine; then its leases are
 * given back, a waiting pull resolves with nothing, and settlements find their leases gone.
 *
 * All it does to leases goes through turns. Each turn begins by comparing what the state says of its leases with what
 * the turn before had left: what is missing was taken by somebody else, and is said to be cancelled or lost. When its
 * session is lost, it enlists again with the next turn.
 */
import type {
  Admission,
  AdmissionDemand,
  BreakerReport,
  FinishedMessages,
  Grant,
  LeaseId,
  Settlement,
  Source,
  SourceOptions,
} from '../../engine.ts'
import type { Timer } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { sessionOf } from './consumers/source-name.ts'
import type { Core } from './core.ts'
import type { PullLimits } from './delivery/allowance.ts'
import { Ownership } from './delivery/ownership.ts'
import type { SubscriptionKey, Turn } from './delivery/turns.ts'
import { HeldLeases, type MissingOffsets } from './held-leases.ts'
import * as sql from './sql/turns.ts'

const SURPLUS_INTERVAL_MS = 100
/** The safety net of a pull that waits: what no notice has told is seen after so long. */
const LOOK_EVERY_MS = 1_000
const LOOK_EVERY_MS_WITHOUT_NOTICES = 100

export type SourceKey = SubscriptionKey & { readonly topicId: number }

interface Looked {
  readonly grants: readonly Grant[]
  readonly damaged: readonly Error[]
  readonly dueAtMs: number | undefined
}

export class PostgresSource implements Source {
  readonly key: SourceKey
  readonly #core: Core
  readonly #options: SourceOptions
  readonly #number: number
  readonly #closing = new AbortController()
  readonly #leases = new HeldLeases()
  /** Under which source they are held: another one means that the session was lost. */
  #name: string
  /** Settlements of which it is not known whether they were recorded. */
  readonly #uncertain = new Set<LeaseId>()
  /** A turn may have leased messages that nobody was told of. */
  #strays = false
  #suspectGranted = false
  #pulls = 0
  #quiet: Timer | undefined
  #checking = false
  #looking: Promise<unknown> | undefined

  constructor(core: Core, key: SourceKey, options: SourceOptions, number: number) {
    this.#core = core
    this.key = key
    this.#options = options
    this.#number = number
    this.#name = this.#currentName()
  }

  get leasedUntilMs(): number {
    return this.#core.session.leasedUntilMs
  }

  get hasSuspectOut(): boolean {
    return this.#suspectGranted || this.#leases.anyIsolated
  }

  /** Makes it known to the others of the subscription. */
  async enlist(): Promise<void> {
    await this.#run('openSource', async () => undefined)
    this.#core.changed(this.key)
  }

  async pull(limits: PullLimits, signal: AbortSignal): Promise<readonly Grant[]> {
    const ending = AbortSignal.any([signal, this.#closing.signal])
    while (!ending.aborted) {
      const mark = this.#core.wakes.mark(this.key.topicId, this.key.subscriptionId)
      const { grants, damaged, dueAtMs } = await this.#look(limits)
      for (const error of damaged) this.#options.onDamage(error)
      if (grants.length > 0 && ending.aborted) await this.#giveBack(grants)
      else if (grants.length > 0) return grants
      await this.#core.wakes.wait(this.key, mark, this.#lookAgainAtMs(dueAtMs), ending)
    }
    return []
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    try {
      const fenced = await this.#run('settle', (turn) => this.#settle(turn, settlements))
      const uncertain = fenced.filter((lease) => this.#uncertain.has(lease))
      for (const { lease } of settlements) this.#uncertain.delete(lease)
      return fenced.filter((lease) => !uncertain.includes(lease))
    } catch (error) {
      const { code } = error as PosthornError
      if (code === 'POSTHORN_SUBSCRIPTION_NOT_FOUND') return settlements.map(({ lease }) => lease)
      if (code === 'POSTHORN_OUTCOME_UNKNOWN') {
        for (const { lease } of settlements) if (this.#leases.has(lease)) this.#uncertain.add(lease)
      }
      throw error
    }
  }

  async admit(
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    this.#requireOpen('admit')
    return this.#core.admissions.admit(this.key.subscriptionId, this.#name, this.#options.limits, demands, finished)
  }

  async reportBreaker(report: BreakerReport | undefined): Promise<void> {
    const shown = this.#closing.signal.aborted ? undefined : report
    await this.#core.breakers.report(this.key.subscriptionId, this.#name, shown)
  }

  steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    return this.#run('steps', (turn) => this.#core.steps.of(turn, this.#name, lease, offset))
  }

  recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void> {
    return this.#run('recordStep', async (turn) => {
      if (this.#closing.signal.aborted) refuseLost(turn)
      await this.#core.steps.record(turn, this.#name, lease, offset, name, result)
    })
  }

  async transact(
    lease: LeaseId,
    offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<'committed' | 'fenced'> {
    this.#requireOpen('transact')
    let settled = false
    this.#leases.beginTransaction(lease, offset)
    try {
      const outcome = await this.#core.transactions.transact(this.key, this.#name, lease, offset, work)
      settled = outcome === 'committed'
      return outcome
    } finally {
      this.#leases.endTransaction(lease, offset, settled)
    }
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    this.#quiet?.cancel()
    this.#core.sources.delete(this)
    try {
      await this.#core.turns.run(this.key, (turn) => this.#leave(turn))
      await this.#core.admissions.release(this.key.subscriptionId, this.#name)
      await this.#core.breakers.report(this.key.subscriptionId, this.#name, undefined)
    } catch (error) {
      if ((error as PosthornError).code !== 'POSTHORN_SUBSCRIPTION_NOT_FOUND') throw error
    }
    this.#core.changed(this.key)
  }

  /** Resolves when a look that is under way is over. */
  async looked(): Promise<void> {
    await this.#looking
  }

  /** As the death of its process would end it: nothing is given back. */
  abandon(): void {
    this.#closing.abort()
    this.#quiet?.cancel()
  }

  /** The session is lost, and everything that it held. */
  sessionLost(reason: string): void {
    const leases = this.#leases.lose()
    this.#uncertain.clear()
    this.#tell(() => this.#options.onLeasesLost(leases, reason), leases.length > 0)
  }

  /** Something of the subscription was changed by others: looks at what became of the leases, and of its partitions. */
  check(): void {
    if (this.#checking || this.#closing.signal.aborted || this.#leases.isEmpty) return
    this.#checking = true
    const done = () => {
      this.#checking = false
    }
    this.#core.turns.run(this.key, (turn) => this.#checkIn(turn)).then(done, done)
  }

  #look(limits: PullLimits): Promise<Looked> {
    const looking = this.#lookNow(limits)
    this.#looking = looking.catch(() => {})
    return looking
  }

  async #lookNow(limits: PullLimits): Promise<Looked> {
    try {
      return await this.#run('pull', (turn) => this.#grant(turn, limits))
    } catch (error) {
      if ((error as PosthornError).code === 'POSTHORN_OUTCOME_UNKNOWN') this.#strays = true
      throw error
    } finally {
      this.#suspectGranted = false
    }
  }

  async #grant(turn: Turn, limits: PullLimits): Promise<Looked> {
    const suspectAllowed = !this.#core.hasSuspectOut()
    const demand = { source: this.#name, limits, turn: this.#pulls, suspectAllowed }
    const { grants, damaged } = await this.#core.granting.grant(turn, demand)
    if (grants.some(({ isolated }) => isolated)) this.#suspectGranted = true
    if (grants.length > 0) turn.afterwards(() => void this.#pulls++)
    this.#shareOut(turn)
    const dueAtMs = grants.length > 0 ? undefined : await this.#core.setAside.nextDueMs(turn)
    return { grants, damaged, dueAtMs }
  }

  async #settle(turn: Turn, settlements: readonly Settlement[]): Promise<LeaseId[]> {
    const { state, subscription } = turn
    const wasFull = state.setAside >= subscription.maxParked
    const fenced = await this.#core.settling.settle(turn, this.#name, settlements)
    const ended = settlements.filter(({ lease }) => fenced.includes(lease) && this.#leases.endedIn(lease) !== undefined)
    for (const { lease, freed = [] } of ended) {
      await this.#core.chains.advance(turn, this.#leases.endedIn(lease)!, freed)
      turn.afterwards(() => this.#leases.forgetEnded(lease))
    }
    const hasRoomNow = wasFull && state.setAside < subscription.maxParked
    const isDue = state.dueAtMs !== undefined && state.dueAtMs <= turn.nowMs
    const failed = settlements.some(({ exceptions }) => exceptions.length > 0)
    if (failed || isDue || hasRoomNow || state.returned.length > 0) turn.afterwards(() => this.#core.changed(this.key))
    if (subscription.kind === 'queue') turn.afterwards(() => this.#core.settledInQueue(this.key))
    this.#shareOut(turn)
    return fenced.filter((lease) => !ended.some((settlement) => settlement.lease === lease))
  }

  async #leave(turn: Turn): Promise<void> {
    const { state } = turn
    const held = [...state.leases.values()].filter(({ source }) => source === this.#name)
    await this.#core.settling.release(turn, held)
    state.sources = state.sources.filter((source) => source !== this.#name)
    for (const [partition, { source }] of state.owners) if (source === this.#name) state.owners.delete(partition)
  }

  /** Runs work in a turn, which begins with a look at the leases, and ends with taking down what is held now. */
  async #run<Value>(operation: string, work: (turn: Turn) => Promise<Value>): Promise<Value> {
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
    return this.#core.turns.run(this.key, async (turn) => {
      const isOpen = !this.#closing.signal.aborted
      if (isOpen && !(await this.#enlistIn(turn))) return 'not enlisted'
      await this.#noticeLosses(turn)
      if (this.#strays) await this.#releaseStrays(turn)
      const value = await work(turn)
      this.#noteHeld(turn)
      return { value }
    })
  }

  #requireOpen(operation: string): void {
    if (this.#closing.signal.aborted) throw new PosthornError('POSTHORN_CLOSED', { operation })
  }

  #currentName(): string {
    return `${this.#core.session.id}/${this.#number}`
  }

  // Whoever was given up, and has not been told yet, is not to take part again with a mere look.
  async #checkIn(turn: Turn): Promise<void> {
    if (this.#currentName() !== this.#name || !turn.state.sources.includes(this.#name)) return
    await this.#noticeLosses(turn)
    this.#shareOut(turn)
    this.#noteHeld(turn)
  }

  #noteHeld(turn: Turn): void {
    const held = this.#leases.take(turn, this.#name)
    turn.afterwards(() => {
      const hadSuspect = this.#leases.anyIsolated
      this.#leases.replace(held)
      // Other subscriptions of this engine may have one now.
      if (hadSuspect && !this.#leases.anyIsolated) this.#core.wakes.all()
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
    for (const missing of this.#leases.missing(turn, this.#name)) {
      const { lease, partition, offsets, isOver } = missing
      const cancelled = await this.#cancelledOf(turn, missing)
      for (const offset of cancelled) this.#tell(() => this.#options.onCancelled(lease, offset))
      if (isOver && cancelled.length === offsets.length) this.#leases.noteEnded(lease, partition)
      else if (isOver) lost.push(lease)
    }
    for (const lease of lost) this.#leases.delete(lease)
    const reason = 'the subscription was moved, or its topic was purged'
    this.#tell(() => this.#options.onLeasesLost(lost, reason), lost.length > 0)
  }

  async #cancelledOf({ rows, subscription }: Turn, { partition, offsets }: MissingOffsets): Promise<number[]> {
    if (!subscription.hasCancelled) return []
    const [from, to] = [offsets[0]!, offsets.at(-1)! + 1]
    const values = [subscription.topicId, partition, from, to]
    const found = await rows.rows<{ offset: number }>(sql.turns.cancelledBetween, ...values)
    const cancelled = new Set(found.map(({ offset }) => offset))
    return offsets.filter((offset) => cancelled.has(offset))
  }

  /** Leases of a turn whose outcome nobody knew. */
  async #releaseStrays(turn: Turn): Promise<void> {
    const held = [...turn.state.leases.values()].filter(({ source }) => source === this.#name)
    const strays = held.filter(({ id }) => !this.#leases.has(id))
    await this.#core.settling.release(turn, strays)
    turn.afterwards(() => {
      this.#strays = false
    })
  }

  async #giveBack(grants: readonly Grant[]): Promise<void> {
    const ids = new Set(grants.map(({ lease }) => lease))
    await this.#core.turns.run(this.key, async (turn) => {
      const held = [...turn.state.leases.values()].filter(({ source, id }) => source === this.#name && ids.has(id))
      await this.#core.settling.release(turn, held)
      // Nobody was told which keys have chains.
      for (const { takeover, partition } of grants) {
        const owner = takeover && turn.state.owners.get(partition)
        if (owner?.source === this.#name) owner.announced = false
      }
      turn.afterwards(() => {
        for (const id of ids) this.#leases.delete(id)
      })
    })
    this.#core.changed(this.key)
  }

  /** Gives up what is beyond its share, as far as it is free, and asks for the rest to be released. */
  #shareOut(turn: Turn): void {
    const { subscription, state } = turn
    if (!subscription.ordered) return
    const ownership = new Ownership(state, subscription.partitions)
    if (ownership.giveUpSurplus().length > 0) turn.afterwards(() => this.#core.changed(this.key))
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
    this.#tell(() => this.#options.onSurplus(partitions))
  }

  #tell(say: () => void, isNews = true): void {
    if (!isNews) return
    queueMicrotask(() => {
      if (!this.#closing.signal.aborted) say()
    })
  }

  #lookAgainAtMs(dueAtMs: number | undefined): number {
    const { clock, hasNotices } = this.#core
    const everyMs = hasNotices ? LOOK_EVERY_MS : LOOK_EVERY_MS_WITHOUT_NOTICES
    return Math.min(dueAtMs ?? Number.POSITIVE_INFINITY, clock.now() + everyMs)
  }
}

function refuseLost({ subscription: { subscription } }: Turn): never {
  const reason = 'it is not held by this consumer any more'
  throw new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason })
}
