/**
 * Tells operators of the breaker's state, in the log and through the engine: of calls to the engine at most one is
 * under way, and the next one brings the latest state. A call that fails is not repeated: what is shown is for
 * information only.
 */
import type { BreakerReport, Source } from '../../engine.ts'
import type { Environment, LogFields } from '../../environment/index.ts'
import { failureOf } from '../settlement/failure.ts'
import type { Circuit, CircuitState } from './circuit.ts'
import { reasonOf } from './reason.ts'

export class BreakerReporter {
  readonly #source: Pick<Source, 'reportBreaker'>
  readonly #environment: Environment
  readonly #fields: LogFields
  #openedAtMs = 0
  #reason = ''
  #latest: BreakerReport | undefined
  #pending = false
  #sending = false

  constructor(source: Pick<Source, 'reportBreaker'>, environment: Environment, fields: LogFields) {
    this.#source = source
    this.#environment = environment
    this.#fields = fields
  }

  /** A run has moved the circuit from one state to another. `thrown`: the outage, if there was one, after `failures - 1` others. */
  moved(before: CircuitState, circuit: Circuit, thrown: unknown, failures: number): void {
    if (thrown !== undefined) this.#reason = reasonOf(thrown)
    if (circuit.state === 'closed') this.#closed()
    else if (circuit.state === 'open' && thrown !== undefined) this.#opened(before, circuit, thrown, failures)
    this.show(circuit)
  }

  show(circuit: Circuit): void {
    this.#latest = this.#reportOn(circuit)
    this.#pending = true
    if (!this.#sending) void this.#send()
  }

  /** Sends nothing any more. */
  stop(): void {
    this.#pending = false
  }

  #closed(): void {
    const { clock, logger } = this.#environment
    const fields = { ...this.#fields, openMs: clock.now() - this.#openedAtMs }
    logger.info('A breaker closed: what the handlers depend on works again.', fields)
  }

  #opened(before: CircuitState, circuit: Circuit, thrown: unknown, failures: number): void {
    const { clock, logger } = this.#environment
    const { code } = failureOf(thrown, 0, 0)
    const place = { ...this.#fields, failures, reason: this.#reason, retryInMs: this.#leftMs(circuit) }
    const fields = code === undefined ? place : { ...place, code }
    if (before === 'open' || before === 'half-open') {
      logger.debug('A breaker stays open: what the handlers depend on still fails.', fields)
    } else {
      this.#openedAtMs = clock.now()
      logger.warn('A breaker opened: what the handlers depend on fails, so they are not called until it works.', fields)
    }
  }

  #reportOn(circuit: Circuit): BreakerReport | undefined {
    const { state } = circuit
    if (state === 'closed') return undefined
    const report = { state, openedAtMs: this.#openedAtMs, reason: this.#reason }
    if (state !== 'open') return report
    return { ...report, probeAtMs: this.#environment.clock.now() + this.#leftMs(circuit) }
  }

  #leftMs({ probeAtMs }: Circuit): number {
    return Math.max(0, Math.ceil(probeAtMs - this.#environment.clock.elapsedMs()))
  }

  async #send(): Promise<void> {
    this.#sending = true
    while (this.#pending) {
      this.#pending = false
      try {
        await this.#source.reportBreaker(this.#latest)
      } catch (error) {
        const fields = { ...this.#fields, error: failureOf(error, 0, 0).message }
        this.#environment.logger.debug('The state of a breaker could not be shown.', fields)
      }
    }
    this.#sending = false
  }
}
