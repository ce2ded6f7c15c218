/**
 * The way of messages through a consumer: puller -> supply -> runner -> finisher -> settler, each of which knows only
 * what it is given. This class joins them, and knows which ledger belongs to which lease.
 *
 * States: open; closing (nothing is pulled or started, handlers run on); closed. A grant that arrives while closing is
 * handed back like those that were buffered. A lease that is lost, whether the engine says so by itself or answers a
 * settlement with it, takes its ledger out of all parts at once.
 */
import { BoxMap } from '../collections/box-map.ts'
import type { Grant, LeaseId, Source } from '../engine.ts'
import type { Environment } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import { Breaker } from './breaker/breaker.ts'
import type { BreakerSettings } from './breaker/settings.ts'
import { LeaseGate } from './delivery/lease-gate.ts'
import { Overrun } from './delivery/overrun.ts'
import { Runner } from './delivery/runner.ts'
import { type Held, workOf } from './delivery/work-of.ts'
import type { WorkTools } from './delivery/work-tools.ts'
import { demandOf, paceOf } from './fetching/demand.ts'
import { Puller } from './fetching/puller.ts'
import type { Intake, Item } from './fetching/supply.ts'
import { type SupplyLine, supplyLine } from './fetching/supply-line.ts'
import { checksOf, type EventChecks } from './flow/event-checks.ts'
import { Outage } from './outage.ts'
import type { ConsumerSettings, Handlers } from './settings.ts'
import { Finisher } from './settlement/finisher.ts'
import { GrantLedger } from './settlement/grant-ledger.ts'
import { Settler } from './settlement/settler.ts'
import { InvalidEvent } from './settlement/verdict.ts'
import { within } from './within.ts'

// How long a handler has, after its signal was aborted by closing, to come to an end.
const ABORTED_WAIT_MS = 1_000
// How long closing waits for an engine that does not answer.
const ENGINE_WAIT_MS = 5_000

export class Pipeline {
  readonly #source: Source
  readonly #settings: ConsumerSettings
  readonly #environment: Environment
  readonly #ledgers = new BoxMap<LeaseId, GrantLedger>()
  readonly #line: SupplyLine
  readonly #intake: Intake
  readonly #overrun: Overrun
  readonly #settler: Settler
  readonly #finisher: Finisher
  readonly #breaker: Breaker | undefined
  readonly #runner: Runner<Held>
  readonly #puller: Puller
  #closing = false

  /** `onGone` is called when the subscription was deleted; then the pipeline is to be closed. */
  constructor(
    source: Source,
    settings: ConsumerSettings,
    environment: Environment,
    handlers: Handlers,
    onGone: (error: PosthornError) => void,
  ) {
    this.#source = source
    this.#settings = settings
    this.#environment = environment
    this.#overrun = new Overrun(settings, environment.logger)
    const checks = checksOf(handlers, settings, environment.clock, {
      refused: (item, error) => this.#reject(item, new InvalidEvent(error)),
      overdue: (item) => this.#reject(item, this.#overrun.report(placeOf(item))),
      onRoom: () => this.#runner.fill(),
    })
    this.#line = this.#supplyLine(checks)
    this.#intake = this.#line.intake
    this.#settler = this.#settlerOf()
    this.#finisher = this.#finisherOf()
    this.#breaker = settings.breaker && this.#guardedBy(settings.breaker)
    const checked = checks === undefined ? handlers : { ...handlers, checkEvent: checks.outcome }
    const work = workOf(this.#tools(), checked, source, this.#breaker)
    this.#runner = new Runner(work, new LeaseGate(source, environment.clock), environment.clock, settings)
    const demand = demandOf({
      settings,
      line: this.#line,
      runner: this.#runner,
      settler: this.#settler,
      breaker: this.#breaker,
    })
    const events = { onGrants: (grants: readonly Grant[]) => this.#accept(grants), onGone }
    this.#puller = new Puller(source, environment.clock, this.#outage('Fetching messages'), demand, events)
  }

  start(): void {
    this.#puller.poke()
  }

  /** Whether a handler runs, or ended at or after `timeMs` of `Clock.elapsedMs`. */
  ranSince(timeMs: number): boolean {
    return this.#runner.running > 0 || this.#runner.lastEndedAtMs >= timeMs
  }

  leasesLost(leases: readonly LeaseId[] | 'all', reason: string): void {
    const ledgers =
      leases === 'all' ? this.#ledgers.values() : leases.flatMap((lease) => this.#ledgers.get(lease) ?? [])
    if (ledgers.length === 0) return
    const { topic, subscription } = this.#settings
    const error = new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason })
    const fields = { code: error.code, topic, subscription, leases: ledgers.length, reason }
    this.#environment.logger.warn(error.message, fields)
    this.#runner.fillAfter(() => {
      // All of them first: what becomes free with one may not go to another.
      for (const ledger of ledgers) ledger.lost = true
      for (const ledger of ledgers) this.#forget(ledger)
      for (const ledger of ledgers) this.#abort(ledger, error)
    })
    this.#puller.poke()
  }

  /** A message was cancelled: what runs is told to stop, what waits is forgotten. */
  cancelled(lease: LeaseId, offset: number): void {
    const ledger = this.#ledgers.get(lease)
    const index = ledger?.indexOf(offset)
    if (ledger === undefined || index === undefined || !ledger.isOpen(index)) return
    const { id } = ledger.message(index).event
    const { topic, subscription } = this.#settings
    const error = new PosthornError('POSTHORN_CANCELLED', { id, subscription })
    this.#environment.logger.info('A message was cancelled.', { topic, subscription, id, offset })
    const item = { ledger, index }
    this.#runner.fillAfter(() => {
      this.#intake.cancel(item)
      this.#finisher.recorded(ledger, index)
      for (const run of this.#runner.runs()) if (run.includes(item)) run.abort(error)
    })
    this.#puller.poke()
  }

  /** Hands back what waits of these partitions, so that others can take them over. What runs goes on. */
  release(partitions: readonly number[]): void {
    if (this.#closing) return
    for (const { ledger, index } of this.#intake.withdraw(new Set(partitions))) this.#finisher.release(ledger, index)
    this.#puller.poke()
    this.#runner.fill()
  }

  /** Ends within the time for draining plus a few seconds, whatever handlers and engine do. */
  async close(): Promise<void> {
    const { clock } = this.#environment
    this.#closing = true
    this.#breaker?.close()
    const stopped = this.#puller.stop()
    this.#handBackBuffered()
    await this.#drain()
    this.#runner.stop()
    this.#line.stop()
    await within(clock, ENGINE_WAIT_MS, stopped)
    await within(clock, ENGINE_WAIT_MS, this.#settler.flush())
    this.#settler.stop()
    await within(clock, ENGINE_WAIT_MS, this.#source.close())
  }

  async #drain(): Promise<void> {
    const { clock } = this.#environment
    if (await within(clock, this.#settings.drainMs, this.#runner.idle())) return
    const operation = `a delivery of subscription ${this.#settings.subscription}`
    const error = new PosthornError('POSTHORN_CLOSED', { operation })
    for (const run of this.#runner.runs()) run.abort(error)
    await within(clock, ABORTED_WAIT_MS, this.#runner.idle())
  }

  #accept(grants: readonly Grant[]): void {
    const arrivedAtMs = this.#environment.clock.elapsedMs()
    for (const grant of grants) {
      if (grant.messages.length === 0) continue
      const ledger = new GrantLedger(grant, arrivedAtMs, this.#line.witness, this.#puller.begun)
      this.#ledgers.set(grant.lease, ledger)
      this.#intake.add(ledger)
    }
    if (this.#closing) this.#handBackBuffered()
    else this.#runner.fill()
    this.#line.arrived()
  }

  #settled(): void {
    this.#puller.poke()
    // The next messages of ordered keys wait for the ones before to be recorded.
    if (this.#settings.ordered !== false) this.#runner.fill()
  }

  // When nothing runs, closing the source is next, and does the same in one step.
  #handBackBuffered(): void {
    const items = this.#intake.drain()
    if (this.#runner.running === 0) return
    for (const { ledger, index } of items) this.#finisher.release(ledger, index)
  }

  #recorded(ledger: GrantLedger): void {
    if (ledger.complete) this.#complete(ledger)
    this.#runner.fill()
  }

  #complete(ledger: GrantLedger): void {
    this.#ledgers.take(ledger.grant.lease)
    this.#breaker?.forget(ledger)
    this.#endExclusive(ledger)
  }

  #endExclusive(ledger: GrantLedger): void {
    if (this.#intake.endExclusive(ledger)) this.#runner.fill()
  }

  #forget(ledger: GrantLedger): void {
    this.#ledgers.take(ledger.grant.lease)
    this.#intake.drop(ledger)
    this.#settler.forget(ledger)
    this.#breaker?.forget(ledger)
  }

  #abort(ledger: GrantLedger, error: PosthornError): void {
    const runs = this.#runner.runs().filter((run) => run.holds(ledger))
    for (const run of runs) run.abort(error)
    if (runs.length === 0) this.#endExclusive(ledger)
  }

  // A message that was not handed over and is not going to be, for now or for good.
  #reject({ ledger, index }: Item, error: unknown): void {
    this.#finisher.decide(ledger, index, error, this.#environment.clock.now())
  }

  #supplyLine(checks: EventChecks | undefined): SupplyLine {
    return supplyLine({
      source: this.#source,
      settings: this.#settings,
      environment: this.#environment,
      outage: this.#outage('Asking which messages may start'),
      checks,
      pace: () => paceOf(this.#settings, this.#runner),
      running: () => this.#runner.running,
      pulls: () => this.#puller.begun,
      park: (item, until) => this.#finisher.park(item, until),
      release: ({ ledger, index }) => this.#finisher.release(ledger, index),
      tell: (ledger) => this.#settler.tell(ledger),
      reject: (item, error) => this.#reject(item, new InvalidEvent(error)),
      onStartable: () => this.#runner.fill(),
    })
  }

  #settlerOf(): Settler {
    const events = {
      onComplete: (ledger: GrantLedger) => this.#complete(ledger),
      onFenced: (leases: readonly LeaseId[]) =>
        this.leasesLost(leases, 'its session had run out before the deliveries were settled'),
      onSettled: () => this.#settled(),
    }
    const outage = this.#outage('Settling deliveries')
    return new Settler(this.#source, this.#environment.clock, outage, events, this.#settings.ordered !== false)
  }

  #finisherOf(): Finisher {
    const events = {
      onLostEnded: (ledger: GrantLedger) => this.#endExclusive(ledger),
      onRecorded: (ledger: GrantLedger) => this.#recorded(ledger),
    }
    return new Finisher(this.#settler, this.#settings, this.#environment, events, this.#line.witness)
  }

  #outage(what: string): Outage {
    const { topic, subscription } = this.#settings
    return new Outage(this.#environment.logger, what, { topic, subscription })
  }

  #guardedBy(settings: BreakerSettings): Breaker {
    const tools = { ...this.#tools(), source: this.#source }
    const breaker = new Breaker(tools, settings)
    this.#finisher.guard = breaker
    return breaker
  }

  #tools(): WorkTools {
    return {
      settings: this.#settings,
      environment: this.#environment,
      supply: this.#intake,
      finisher: this.#finisher,
      overrun: this.#overrun,
      leases: this.#source,
      stepStore: this.#source,
      onStarted: () => this.#puller.poke(),
      onBegun: (run) => this.#runner.restart(run),
      onStartable: () => this.#runner.fill(),
    }
  }
}

function placeOf({ ledger, index }: Item) {
  const { partition, attempt } = ledger.grant
  return { partition, offset: ledger.message(index).offset, attempt }
}
