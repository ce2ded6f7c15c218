/**
 * Keeps a subscription from burning attempts while what its handlers depend on is down, for one process.
 *
 * `Circuit` decides what may start. This class decides what becomes of messages whose failure is an outage:
 * - While the circuit is closed, it is *undecided*: the message stays here, not settled, its handler's place free. Once
 *   a run that started after the failure finds the downstream alive, the failure was the message's own: it is settled
 *   as any other. When the circuit opens, all that is undecided is put back, uncounted. When neither happens for as
 *   long as the retry policy waits after such an attempt, the message is put back too: its next failure is one more
 *   outage in a row. A retry waits at least as long as it takes repeated failures to open the circuit, so that in such
 *   a row no message has two turns.
 * - Otherwise, and for runs from before the circuit last opened, the message is put back, uncounted; behind the others
 *   if it was tried as a probe or while ramping, so that one message cannot fail all probes.
 * - A message whose failure went uncounted before, while others have found the downstream alive since, is settled as
 *   any other: so a failure of the message itself, whatever it looks like, is uncounted only a few times.
 * - The failure of a retry is worth little as evidence (see `Circuit`), but is kept as any other: without a later sign
 *   of life it is not counted, so that an outage costs no attempts even when it meets nothing but retries.
 * - Suspects keep everything else from starting, so they never wait here: they are set aside, uncounted, unless the
 *   downstream sounded alive up to then; in that case the attempt counts.
 * - While closing, messages are released, uncounted.
 *
 * One timer, for the next probe or for the undecided message that is due first.
 */
import type { Source } from '../../engine.ts'
import type { Environment, LogFields, Timer } from '../../environment/index.ts'
import type { Supply } from '../fetching/supply.ts'
import { retryDelayMs } from '../retry-policy.ts'
import type { ConsumerSettings } from '../settings.ts'
import { failureOf } from '../settlement/failure.ts'
import type { FailureGuard, Finisher } from '../settlement/finisher.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Circuit, type CircuitState } from './circuit.ts'
import { PassedOver } from './passed-over.ts'
import { BreakerReporter } from './reporter.ts'
import { retryAfterMs } from './retry-after.ts'
import type { BreakerSettings } from './settings.ts'
import { Testimony } from './testimony.ts'
import { isPending, type KeptFailure, Undecided } from './undecided.ts'

export interface BreakerTools {
  readonly source: Pick<Source, 'reportBreaker'>
  readonly settings: ConsumerSettings
  readonly environment: Environment
  readonly supply: Supply
  readonly finisher: Pick<Finisher, 'decide' | 'release' | 'park'>
  /** More may be fetched than before. */
  onStarted(): void
  /** Something may have become startable that was not before. */
  onStartable(): void
}

export class Breaker implements FailureGuard {
  readonly #tools: BreakerTools
  readonly #settings: BreakerSettings
  readonly #circuit: Circuit
  readonly #undecided = new Undecided()
  readonly #passedOver: PassedOver
  readonly #reporter: BreakerReporter
  readonly #fields: LogFields
  readonly #isOutage = (thrown: unknown): boolean => this.#classify(thrown)
  /** Of the run that is being settled. */
  #testimony: Testimony | undefined = undefined
  #timer: Timer | undefined = undefined
  #wakeAtMs = 0
  #closing = false
  #complained = false

  constructor(tools: BreakerTools, settings: BreakerSettings) {
    const { topic, subscription, concurrency } = tools.settings
    this.#tools = tools
    this.#settings = settings
    this.#fields = { topic, subscription }
    this.#circuit = new Circuit({ ...settings, concurrency }, tools.environment.random)
    this.#passedOver = new PassedOver(tools.supply)
    this.#reporter = new BreakerReporter(tools.source, tools.environment, this.#fields)
  }

  /**
   * Messages that were tried, now or before, and wait for another time while the breaker is not closed. They are not to
   * keep others from being fetched: those may work where these fail.
   */
  get tried(): number {
    return this.#circuit.state === 'closed' ? 0 : this.#undecided.marked + this.#passedOver.count
  }

  /** Something may start, if `mayStart` says so: sees to it that it is what tells most. */
  choose(): void {
    // To take a message and put it back would cost a permission.
    if (this.#circuit.state === 'closed' || this.#closing || this.#tools.settings.limits.length > 0) return
    if (this.#passedOver.look()) this.#tools.onStarted()
  }

  mayStart(): boolean {
    const circuit = this.#circuit
    return (circuit.state === 'closed' || circuit.mayStart(this.#elapsedMs())) && !this.#closing
  }

  /** A run starts. Returns its number. */
  start(): number {
    const { state } = this.#circuit
    const run = this.#circuit.start()
    if (this.#circuit.state !== state && !this.#closing) this.#reporter.show(this.#circuit)
    return run
  }

  /**
   * A run has ended. `settle` ends its messages by way of the finisher, which asks `keeps` about those that failed.
   * `succeeded`: not all of them failed.
   */
  judge(run: number, succeeded: boolean, settle: () => void): void {
    // Settling one run may lead to the start, and to the end, of another.
    const outer = this.#testimony
    const testimony = new Testimony(this.#isOutage)
    this.#testimony = testimony
    settle()
    this.#testimony = outer
    this.#weigh(run, succeeded, testimony)
  }

  keeps(ledger: GrantLedger, index: number, thrown: unknown, atMs: number): boolean {
    const testimony = this.#testimony
    if (testimony === undefined || !testimony.hear(thrown)) return false
    const failure = { ledger, index, thrown, atMs, afterRun: this.#circuit.started }
    testimony.retryAfterMs = Math.max(testimony.retryAfterMs, retryAfterMs(thrown, atMs))
    const mark = this.#undecided.markOf(failure)
    const own = mark !== undefined && this.#circuit.aliveSince(mark)
    if (this.#isRepeated(ledger, mark, own)) testimony.repeated++
    else testimony.outages++
    if (own || !isPending(failure)) return false
    if (ledger.grant.isolated && !this.#closing) return this.#parks(failure)
    testimony.kept.push(failure)
    return true
  }

  /** The ledger is complete, or its lease was lost. */
  forget(ledger: GrantLedger): void {
    this.#undecided.forget(ledger)
    this.#passedOver.forget(ledger)
    this.#setTimer()
  }

  /** Releases what is undecided. Nothing starts any more. */
  close(): void {
    this.#closing = true
    this.#timer?.cancel()
    this.#timer = undefined
    this.#reporter.stop()
    for (const failure of this.#undecided.take(all)) this.#release(failure)
  }

  #elapsedMs(): number {
    return this.#tools.environment.clock.elapsedMs()
  }

  #classify(thrown: unknown): boolean {
    try {
      return this.#settings.isOutage(thrown) === true
    } catch (error) {
      if (!this.#complained) {
        const { message } = failureOf(error, 0, 0)
        const fields = { ...this.#fields, error: message }
        this.#tools.environment.logger.warn('isOutage threw; the failure counts as one of its message.', fields)
      }
      this.#complained = true
      return false
    }
  }

  // Once its failure was counted a message comes back in a grant of its own: what tells those that always fail is the
  // attempt. One that was tried before, while only such had their turn, tells nothing new either. A probe that fails a
  // second time has to do: there is nothing else to be tried. `own`: the failure is the message's own.
  #isRepeated({ grant }: GrantLedger, mark: number | undefined, own: boolean): boolean {
    const { state, repeated } = this.#circuit
    if (state === 'half-open') return own || (grant.attempt > 1 && (mark === undefined || !this.#circuit.isFresh(mark)))
    return grant.attempt > 1 || (state === 'closed' && mark !== undefined && repeated > 0)
  }

  #weigh(run: number, succeeded: boolean, testimony: Testimony): void {
    const circuit = this.#circuit
    const { state, allowed, probeAtMs } = circuit
    const fresh = circuit.isFresh(run)
    const failures = circuit.failures + 1
    const evidence = testimony.evidence(succeeded)
    circuit.end(run, evidence, this.#elapsedMs(), testimony.retryAfterMs)
    if (state === 'closed' && circuit.state === 'closed' && testimony.kept.length === 0 && this.#undecided.empty) return
    this.#dispose(testimony, state, fresh)
    if (evidence === 'alive') this.#decide()
    if (circuit.state === 'closed') this.#passedOver.clear()
    const moved = circuit.state !== state || circuit.probeAtMs !== probeAtMs
    if (moved && !this.#closing) this.#reporter.moved(state, circuit, testimony.reason, failures)
    this.#setTimer()
    if (circuit.allowed > allowed) this.#tools.onStartable()
  }

  #dispose({ kept, retryAfterMs: askedMs }: Testimony, before: CircuitState, fresh: boolean): void {
    const circuit = this.#circuit
    const unforeseen = before === 'closed' || !fresh
    if (this.#closing) for (const failure of kept) this.#release(failure)
    else if (circuit.state === 'closed' && before === 'closed' && fresh) this.#setDown(kept, askedMs)
    else this.#putBack(kept, unforeseen ? 'first' : 'last')
    // What failed before stands before what failed now.
    if (circuit.state === 'open' && before === 'closed') this.#putBack(this.#undecided.take(all), 'first')
  }

  #setDown(kept: readonly KeptFailure[], askedMs: number): void {
    const first = kept[0]
    if (first === undefined) return
    // Retries that came back sooner could keep all handlers busy before anything else has had its turn.
    const leastMs = first.ledger.grant.attempt === 1 ? 0 : this.#circuit.repeatedMaxMs
    const dueAtMs = this.#elapsedMs() + Math.max(this.#delayMs(first), askedMs, leastMs)
    this.#undecided.add({ failures: kept, afterRun: first.afterRun, dueAtMs })
    for (const failure of kept) this.#tools.supply.setDown(failure)
  }

  #delayMs({ ledger }: KeptFailure): number {
    const { settings, environment } = this.#tools
    return retryDelayMs(settings.retry.backoff, ledger.grant.attempt, environment.random)
  }

  #putBack(failures: readonly KeptFailure[], place: 'first' | 'last'): void {
    const pending = failures.filter(isPending)
    for (const failure of place === 'first' ? pending.toReversed() : pending) {
      this.#undecided.mark(failure)
      this.#passedOver.forget(failure.ledger)
      this.#tools.supply.putBack(failure, place)
    }
    if (pending.length > 0) this.#tools.onStarted()
  }

  #release(failure: KeptFailure): void {
    this.#tools.finisher.release(failure.ledger, failure.index)
  }

  // A suspect that waited here would keep everything else waiting.
  #parks(failure: KeptFailure): boolean {
    if (this.#circuit.soundsAlive) return false
    const askedMs = retryAfterMs(failure.thrown, failure.atMs)
    this.#tools.finisher.park(failure, failure.atMs + Math.max(this.#delayMs(failure), askedMs))
    return true
  }

  // The downstream works for what started after these had failed.
  #decide(): void {
    const own = this.#undecided.take(({ afterRun }) => this.#circuit.aliveSince(afterRun))
    for (const { ledger, index, thrown, atMs } of own) this.#tools.finisher.decide(ledger, index, thrown, atMs)
  }

  #setTimer(): void {
    const atMs = this.#closing ? undefined : this.#nextAtMs()
    if (this.#timer !== undefined && atMs === this.#wakeAtMs) return
    this.#timer?.cancel()
    this.#timer = undefined
    if (atMs === undefined) return
    this.#wakeAtMs = atMs
    this.#timer = this.#tools.environment.clock.setTimer(Math.ceil(atMs - this.#elapsedMs()), () => this.#wake())
  }

  // A probe that could have started already waits for a message, not for a timer.
  #nextAtMs(): number | undefined {
    const { state, probeAtMs } = this.#circuit
    if (state !== 'open') return this.#undecided.nextDueAtMs
    return probeAtMs > this.#elapsedMs() ? probeAtMs : undefined
  }

  #wake(): void {
    this.#timer = undefined
    const nowMs = this.#elapsedMs()
    const due = this.#undecided.take(({ dueAtMs }) => dueAtMs <= nowMs)
    this.#putBack(due, 'last')
    this.#setTimer()
    this.#tools.onStartable()
  }
}

const all = () => true
