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
import { BreakerWork } from './breaker/breaker-work.ts'
import type { BreakerSettings } from './breaker/settings.ts'
import type { Abortable } from './delivery/abortable.ts'
import { BatchWork } from './delivery/batch-work.ts'
import { Overrun } from './delivery/overrun.ts'
import { Runner, type Work } from './delivery/runner.ts'
import { SingleWork } from './delivery/single-work.ts'
import { TransactionalWork } from './delivery/transactional-work.ts'
import type { WorkTools } from './delivery/work-tools.ts'
import type { Pace } from './fetching/prefetch.ts'
import { type Demand, Puller } from './fetching/puller.ts'
import type { Intake, Item } from './fetching/supply.ts'
import { type SupplyLine, supplyLine } from './fetching/supply-line.ts'
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

/** A run whose leases and messages can be told. */
interface Held extends Abortable {
  holds(ledger: GrantLedger): boolean
  includes(item: Item): boolean
}

export class Pipeline {
  readonly #source: Source
  readonly #settings: ConsumerSettings
  readonly #environment: Environment
  readonly #ledgers = new BoxMap<LeaseId, GrantLedger>()
  readonly #line: SupplyLine
  readonly #intake: Intake
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
    this.#line = this.#supplyLine()
    this.#intake = this.#line.intake
    this.#settler = this.#settlerOf()
    this.#finisher = this.#finisherOf()
    this.#breaker = settings.breaker && this.#guardedBy(settings.breaker)
    this.#runner = new Runner(this.#work(handlers), environment.clock, settings)
    const events = { onGrants: (grants: readonly Grant[]) => this.#accept(grants), onGone }
    this.#puller = new Puller(source, environment.clock, this.#outage('Fetching messages'), this.#demand(), events)
  }

  start(): void {
    this.#puller.poke()
  }

  /** Whether a handler runs, or ended at or after `timeMs` of `Clock.elapsedMs`. */
  ranSince(timeMs: number): boolean {
    return this.#runner.running > 0 || this.#runner.lastEndedAtMs >= timeMs
  }

  leasesLost(leases: readonly LeaseId[], reason: string): void {
    const ledgers = leases.flatMap((lease) => this.#ledgers.get(lease) ?? [])
    if (ledgers.length === 0) return
    const { topic, subscription } = this.#settings
    const error = new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason })
    const fields = { code: error.code, topic, subscription, leases: ledgers.length, reason }
    this.#environment.logger.warn(error.message, fields)
    // All of them first: what becomes free with one may not go to another.
    for (const ledger of ledgers) ledger.lost = true
    for (const ledger of ledgers) this.#forget(ledger)
    for (const ledger of ledgers) this.#abort(ledger, error)
    this.#puller.poke()
    this.#runner.fill()
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
    this.#intake.cancel(item)
    this.#finisher.recorded(ledger, index)
    for (const run of this.#runner.runs()) if (run.includes(item)) run.abort(error)
    this.#puller.poke()
    this.#runner.fill()
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

  #supplyLine(): SupplyLine {
    return supplyLine({
      source: this.#source,
      settings: this.#settings,
      environment: this.#environment,
      outage: this.#outage('Asking which messages may start'),
      pace: () => this.#pace(),
      running: () => this.#runner.running,
      pulls: () => this.#puller.begun,
      park: (item, until) => this.#finisher.park(item, until),
      release: ({ ledger, index }) => this.#finisher.release(ledger, index),
      reject: ({ ledger, index }, error) =>
        this.#finisher.decide(ledger, index, new InvalidEvent(error), this.#environment.clock.now()),
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

  #work(handlers: Handlers): Work<Held> {
    const { batch, transactional } = this.#settings
    const tools = this.#tools()
    if (handlers.handle !== undefined) {
      const work = transactional
        ? new TransactionalWork(tools, handlers, this.#source)
        : new SingleWork(tools, handlers)
      return this.#breakable(work, () => true)
    }
    const batches = new BatchWork(tools, handlers, batch ?? { size: 1, waitMs: 0 })
    return this.#breakable(batches, ({ items, failed }) => failed.size < items.length)
  }

  #breakable<Run extends Held>(work: Work<Run>, worked: (run: Run) => boolean): Work<Run> {
    return this.#breaker === undefined ? work : new BreakerWork(this.#breaker, work, worked)
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
      overrun: new Overrun(this.#settings, this.#environment.logger),
      stepStore: this.#source,
      onStarted: () => this.#puller.poke(),
      onStartable: () => this.#runner.fill(),
    }
  }

  #demand(): Demand {
    // Asked for every message that is started.
    const plain = this.#line.witness === undefined && this.#breaker === undefined
    return {
      pace: () => this.#pace(),
      running: () => this.#runner.running,
      buffered: plain ? () => this.#intake.count : () => this.#buffered(),
      blocked: () => this.#intake.blocked,
      full: () => this.#intake.full || this.#intake.leaving,
      unrecorded: () => this.#settler.waiting,
    }
  }

  // While all handlers are busy, there is nothing to look for ahead of what waits.
  #buffered(): number {
    const { ahead, blocked, looksFurther } = this.#intake
    const looks = looksFurther || this.#runner.running < this.#settings.concurrency
    const buffered = looks ? ahead : ahead + blocked
    return this.#breaker === undefined ? buffered : Math.max(0, buffered - this.#breaker.tried)
  }

  #pace(): Pace {
    const { concurrency, batch } = this.#settings
    return { averageMs: this.#runner.durations.averageMs, concurrency, callSize: batch?.size ?? 1 }
  }
}
