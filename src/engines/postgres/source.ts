/**
 * This process's share of a subscription. Open until it is closed, by the user or by its engine; then its leases are
 * given back, a waiting pull resolves with nothing, and settlements find their leases gone. All that it does to leases
 * goes through turns.
 *
 * One that cannot give them back, as the server is away, is leaving until it could: the session under whose name it has
 * them lives on, so that nobody else would take them.
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
import { linkSignals } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { Core } from './core.ts'
import type { PullLimits } from './delivery/allowance.ts'
import type { Turn } from './delivery/turns.ts'
import { type SourceKey, SourceTurns } from './source-turns.ts'

/** The safety net of a pull that waits: what no notice has told is seen after so long. */
const LOOK_EVERY_MS = 1_000
const LOOK_EVERY_MS_WITHOUT_NOTICES = 100

/** The subscription was deleted, or its tables are those of a newer version: there is nothing left to settle here. */
const NOTHING_HELD: ReadonlySet<string> = new Set(['POSTHORN_SUBSCRIPTION_NOT_FOUND', 'POSTHORN_SCHEMA_TOO_NEW'])

interface Looked {
  readonly grants: readonly Grant[]
  readonly damaged: readonly Error[]
  readonly dueAtMs: number | undefined
}

export class PostgresSource implements Source {
  readonly key: SourceKey
  readonly #core: Core
  readonly #options: SourceOptions
  readonly #turns: SourceTurns
  readonly #closing = new AbortController()
  #suspectGranted = false
  /** Partitions that were taken over with what a look that is under way has granted. */
  #takenOver: readonly number[] = []
  #pulls = 0
  #closed: Promise<void> | undefined
  #looking: Promise<unknown> | undefined

  constructor(core: Core, key: SourceKey, options: SourceOptions, number: number) {
    this.#core = core
    this.key = key
    this.#options = options
    this.#turns = new SourceTurns(core, key, number, options, this.#closing.signal)
  }

  get leasedUntilMs(): number {
    return this.#core.session.leasedUntilMs
  }

  get hasSuspectOut(): boolean {
    return this.#suspectGranted || this.#turns.leases.anyIsolated
  }

  /** Makes it known to the others of the subscription. */
  async enlist(): Promise<void> {
    await this.#turns.run('openSource', async () => undefined)
    this.#core.changed(this.key)
  }

  async pull(limits: PullLimits, signal: AbortSignal): Promise<readonly Grant[]> {
    const { signal: ending, unlink } = linkSignals(signal, this.#closing.signal)
    try {
      return await this.#pullUntil(ending, limits)
    } finally {
      unlink()
    }
  }

  async #pullUntil(ending: AbortSignal, limits: PullLimits): Promise<readonly Grant[]> {
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
      const fenced = await this.#turns.run('settle', (turn) => this.#settle(turn, settlements))
      const uncertain = fenced.filter((lease) => this.#turns.uncertain.has(lease))
      for (const { lease } of settlements) this.#turns.uncertain.delete(lease)
      return fenced.filter((lease) => !uncertain.includes(lease))
    } catch (error) {
      const { code } = error as PosthornError
      if (code !== undefined && NOTHING_HELD.has(code)) return settlements.map(({ lease }) => lease)
      if (code === 'POSTHORN_OUTCOME_UNKNOWN') {
        for (const settlement of settlements) this.#turns.noteUncertain(settlement)
      }
      throw error
    }
  }

  async admit(
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    this.#requireOpen('admit')
    return this.#core.admissions.admit(
      this.key.subscriptionId,
      this.#turns.name,
      this.#options.limits,
      demands,
      finished,
    )
  }

  async reportBreaker(report: BreakerReport | undefined): Promise<void> {
    const shown = this.#closing.signal.aborted ? undefined : report
    await this.#core.breakers.report(this.key.subscriptionId, this.#turns.name, shown)
  }

  steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    return this.#turns.run('steps', (turn) => this.#core.steps.of(turn, this.#turns.name, lease, offset))
  }

  recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void> {
    return this.#turns.run('recordStep', async (turn) => {
      if (this.#closing.signal.aborted) refuseLost(turn)
      await this.#core.steps.record(turn, this.#turns.name, lease, offset, name, result)
    })
  }

  async transact(
    lease: LeaseId,
    offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<'committed' | 'fenced'> {
    this.#requireOpen('transact')
    let settled = false
    this.#turns.leases.beginTransaction(lease, offset)
    try {
      const outcome = await this.#core.transactions.transact(this.key, this.#turns.name, lease, offset, work)
      settled = outcome === 'committed'
      return outcome
    } finally {
      this.#turns.leases.endTransaction(lease, offset, settled)
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#closing.abort()
    this.#core.sources.delete(this)
    this.#core.leaving.add(this)
    await this.leave()
  }

  /** Gives back all that it has. Rejects when it could not; then it is to be tried again. */
  async leave(): Promise<void> {
    try {
      await this.#core.turns.run(this.key, (turn) => this.#leave(turn))
      await this.#core.admissions.release(this.key.subscriptionId, this.#turns.name)
      await this.#core.breakers.report(this.key.subscriptionId, this.#turns.name, undefined)
    } catch (error) {
      if (!NOTHING_HELD.has((error as PosthornError).code)) throw error
    }
    this.#core.leaving.delete(this)
    this.#core.changed(this.key)
  }

  /** Resolves when a look that is under way is over. */
  async looked(): Promise<void> {
    await this.#looking
  }

  /** As the death of its process would end it: nothing is given back. */
  abandon(): void {
    this.#closing.abort()
  }

  /** The session is lost, and everything that it held. */
  sessionLost(reason: string): void {
    this.#turns.sessionLost(reason)
  }

  /** The server is another one, which may not have heard of what was settled last. */
  serverChanged(): void {
    this.#turns.strays = true
  }

  /** Something of the subscription was changed by others. */
  check(): void {
    this.#turns.check()
  }

  #look(limits: PullLimits): Promise<Looked> {
    const looking = this.#lookNow(limits)
    this.#looking = looking.catch(() => {})
    return looking
  }

  async #lookNow(limits: PullLimits): Promise<Looked> {
    try {
      return await this.#turns.run('pull', (turn) => this.#grant(turn, limits))
    } catch (error) {
      if ((error as PosthornError).code === 'POSTHORN_OUTCOME_UNKNOWN') this.#noteUntold()
      throw error
    } finally {
      this.#suspectGranted = false
      this.#takenOver = []
    }
  }

  #noteUntold(): void {
    this.#turns.strays = true
    for (const partition of this.#takenOver) this.#turns.untold.add(partition)
  }

  async #grant(turn: Turn, limits: PullLimits): Promise<Looked> {
    // It may have left already, with this very turn: partitions that it took now would stay with it.
    if (this.#closing.signal.aborted) return { grants: [], damaged: [], dueAtMs: undefined }
    const suspectAllowed = !this.#core.hasSuspectOut()
    const demand = { source: this.#turns.name, limits, turn: this.#pulls, suspectAllowed }
    const { grants, damaged } = await this.#core.granting.grant(turn, demand)
    this.#takenOver = takenOverWith(grants)
    if (grants.some(({ isolated }) => isolated)) this.#suspectGranted = true
    if (grants.length > 0) turn.afterwards(() => void this.#pulls++)
    this.#turns.shareOut(turn)
    const dueAtMs = grants.length > 0 ? undefined : await this.#core.setAside.nextDueMs(turn)
    return { grants, damaged, dueAtMs }
  }

  async #settle(turn: Turn, settlements: readonly Settlement[]): Promise<LeaseId[]> {
    const { state, subscription } = turn
    const wasFull = state.setAside >= subscription.maxParked
    const fenced = await this.#core.settling.settle(turn, this.#turns.name, settlements)
    const ended = settlements.filter(
      ({ lease }) => fenced.includes(lease) && this.#turns.leases.endedIn(lease) !== undefined,
    )
    for (const { lease, freed = [] } of ended) {
      await this.#core.chains.advance(turn, this.#turns.leases.endedIn(lease)!, freed)
      turn.afterwards(() => this.#turns.leases.forgetEnded(lease))
    }
    const hasRoomNow = wasFull && state.setAside < subscription.maxParked
    const isDue = state.dueAtMs !== undefined && state.dueAtMs <= turn.nowMs
    const failed = settlements.some(({ exceptions }) => exceptions.length > 0)
    if (failed || isDue || hasRoomNow || state.returned.length > 0) turn.afterwards(() => this.#core.changed(this.key))
    if (subscription.kind === 'queue') turn.afterwards(() => this.#core.settledInQueue(this.key))
    this.#turns.shareOut(turn)
    return fenced.filter((lease) => !ended.some((settlement) => settlement.lease === lease))
  }

  async #leave(turn: Turn): Promise<void> {
    const { state } = turn
    const held = [...state.leases.values()].filter(({ source }) => source === this.#turns.name)
    await this.#core.settling.release(turn, held)
    state.sources = state.sources.filter((source) => source !== this.#turns.name)
    for (const [partition, { source }] of state.owners) if (source === this.#turns.name) state.owners.delete(partition)
  }

  #requireOpen(operation: string): void {
    if (this.#closing.signal.aborted) throw new PosthornError('POSTHORN_CLOSED', { operation })
  }

  async #giveBack(grants: readonly Grant[]): Promise<void> {
    const ids = new Set(grants.map(({ lease }) => lease))
    await this.#core.turns.run(this.key, async (turn) => {
      await this.#turns.releaseStrays(turn)
      const held = [...turn.state.leases.values()].filter(
        ({ source, id }) => source === this.#turns.name && ids.has(id),
      )
      await this.#core.settling.release(turn, held)
      this.#turns.announceAgain(turn, takenOverWith(grants))
      this.#turns.noteHeld(turn)
    })
    this.#core.changed(this.key)
  }

  #lookAgainAtMs(dueAtMs: number | undefined): number {
    const { clock, hasNotices } = this.#core
    const everyMs = hasNotices ? LOOK_EVERY_MS : LOOK_EVERY_MS_WITHOUT_NOTICES
    return Math.min(dueAtMs ?? Number.POSITIVE_INFINITY, clock.now() + everyMs)
  }
}

/** The partitions that these grants say are the source's now. */
function takenOverWith(grants: readonly Grant[]): number[] {
  return grants.flatMap(({ takeover, partition }) => (takeover ? [partition] : []))
}

function refuseLost({ subscription: { subscription } }: Turn): never {
  const reason = 'it is not held by this consumer any more'
  throw new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason })
}
