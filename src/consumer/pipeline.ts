/**
 * The way of messages through a consumer: puller -> buffer -> runner -> finisher -> settler, each of which knows only
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
import type { Abortable } from './delivery/abortable.ts'
import { BatchWork } from './delivery/batch-work.ts'
import { Overrun } from './delivery/overrun.ts'
import { Runner, type Work } from './delivery/runner.ts'
import { SingleWork } from './delivery/single-work.ts'
import type { WorkTools } from './delivery/work-tools.ts'
import { GrantBuffer } from './fetching/buffer.ts'
import type { Pace } from './fetching/prefetch.ts'
import { type Demand, Puller } from './fetching/puller.ts'
import { Outage } from './outage.ts'
import type { ConsumerSettings, Handlers } from './settings.ts'
import { Finisher } from './settlement/finisher.ts'
import { GrantLedger } from './settlement/grant-ledger.ts'
import { Settler } from './settlement/settler.ts'
import { within } from './within.ts'

// How long a handler has, after its signal was aborted by closing, to come to an end.
const ABORTED_WAIT_MS = 1_000
// How long closing waits for an engine that does not answer.
const ENGINE_WAIT_MS = 5_000

/** A run whose leases can be told. */
interface Held extends Abortable {
  holds(ledger: GrantLedger): boolean
}

export class Pipeline {
  readonly #source: Source
  readonly #settings: ConsumerSettings
  readonly #environment: Environment
  readonly #ledgers = new BoxMap<LeaseId, GrantLedger>()
  readonly #buffer = new GrantBuffer()
  readonly #settler: Settler
  readonly #finisher: Finisher
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
    this.#settler = new Settler(source, environment.clock, this.#outage('Settling deliveries'), {
      onComplete: (ledger) => this.#complete(ledger),
      onFenced: (leases) => this.leasesLost(leases, 'its session had run out before the deliveries were settled'),
      onSettled: () => this.#puller.poke(),
    })
    this.#finisher = new Finisher(this.#settler, settings, environment, (ledger) => this.#endExclusive(ledger))
    this.#runner = new Runner(this.#work(handlers), environment.clock, settings)
    const demand = this.#demand()
    const outage = this.#outage('Fetching messages')
    const events = { onGrants: (grants: readonly Grant[]) => this.#accept(grants), onGone }
    this.#puller = new Puller(source, environment.clock, outage, demand, events)
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
    for (const ledger of ledgers) this.#lose(ledger, error)
    this.#puller.poke()
    this.#runner.fill()
  }

  /** Ends within the time for draining plus a few seconds, whatever handlers and engine do. */
  async close(): Promise<void> {
    const { clock } = this.#environment
    this.#closing = true
    const stopped = this.#puller.stop()
    this.#handBackBuffered()
    await this.#drain()
    this.#runner.stop()
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
      const ledger = new GrantLedger(grant, arrivedAtMs)
      this.#ledgers.set(grant.lease, ledger)
      this.#buffer.add(ledger)
    }
    if (this.#closing) this.#handBackBuffered()
    else this.#runner.fill()
  }

  // When nothing runs, closing the source is next, and does the same in one step.
  #handBackBuffered(): void {
    const ledgers = this.#buffer.drain()
    if (this.#runner.running === 0) return
    for (const ledger of ledgers) {
      while (ledger.waiting > 0) this.#finisher.release(ledger, ledger.next++)
    }
  }

  #complete(ledger: GrantLedger): void {
    this.#ledgers.take(ledger.grant.lease)
    this.#endExclusive(ledger)
  }

  #endExclusive(ledger: GrantLedger): void {
    if (this.#buffer.endExclusive(ledger)) this.#runner.fill()
  }

  #lose(ledger: GrantLedger, error: PosthornError): void {
    ledger.lost = true
    this.#ledgers.take(ledger.grant.lease)
    this.#buffer.drop(ledger)
    this.#settler.forget(ledger)
    const runs = this.#runner.runs().filter((run) => run.holds(ledger))
    for (const run of runs) run.abort(error)
    if (runs.length === 0) this.#endExclusive(ledger)
  }

  #outage(what: string): Outage {
    const { topic, subscription } = this.#settings
    return new Outage(this.#environment.logger, what, { topic, subscription })
  }

  #work(handlers: Handlers): Work<Held> {
    const { batch } = this.#settings
    const tools = this.#tools()
    if (handlers.handle !== undefined) return new SingleWork(tools, handlers)
    return new BatchWork(tools, handlers, batch ?? { size: 1, waitMs: 0 })
  }

  #tools(): WorkTools {
    return {
      settings: this.#settings,
      environment: this.#environment,
      buffer: this.#buffer,
      finisher: this.#finisher,
      overrun: new Overrun(this.#settings, this.#environment.logger),
      onStarted: () => this.#puller.poke(),
      onStartable: () => this.#runner.fill(),
    }
  }

  #demand(): Demand {
    return {
      pace: () => this.#pace(),
      running: () => this.#runner.running,
      buffered: () => this.#buffer.count,
      full: () => this.#buffer.full,
      unrecorded: () => this.#settler.waiting,
    }
  }

  #pace(): Pace {
    const { concurrency, batch } = this.#settings
    return { averageMs: this.#runner.durations.averageMs, concurrency, callSize: batch?.size ?? 1 }
  }
}
