/**
 * The decisions of a breaker, without timers and messages. Times are those of `Clock.elapsedMs`. Handler calls ("runs")
 * are numbered in the order in which they start, from 1.
 *
 * - closed: everything may start. `threshold` outages in a row, with no sign of life from any run between them, open it.
 * - open: nothing starts until `probeAtMs`. Then the next run is the probe.
 * - half-open: the probe runs, and nothing else starts. A sign of life leads to ramping, an outage to open, for twice as
 *   long as before; if it told nothing (its message was invalid, its lease was lost), another one may start at once.
 * - ramping: 1, 2, 4, ... runs at once, doubled after as many signs of life as are allowed at once, until `concurrency`
 *   is reached: then it is closed. An outage opens it, for twice as long as before.
 *
 * Invariants: of the runs that started since it last opened (the *fresh* ones) there is never more than one while it is
 * half-open, and never more than are allowed while it is ramping. Runs from before that change nothing but how long it stays
 * open, when they bring a Retry-After.
 */
import type { Random } from '../../environment/index.ts'

export type CircuitState = 'closed' | 'open' | 'half-open' | 'ramping'

/**
 * What a run told about the downstream. `repeated`: only outages of messages of which it is known that the downstream
 * works for others: these open the breaker when there are many of them in a row, but not each of them by itself.
 */
export type Evidence = 'alive' | 'outage' | 'repeated' | 'none'

export interface CircuitSettings {
  readonly threshold: number
  readonly concurrency: number
  readonly probe: { readonly delayMs: number; readonly maxMs: number }
}

export class Circuit {
  state: CircuitState = 'closed'
  /** While it is open: when the next probe may start. */
  probeAtMs = 0
  /** Outages in a row since the last sign of life, or since it opened. */
  failures = 0
  /** Runs that have started. */
  started = 0
  readonly #settings: CircuitSettings
  readonly #random: Random
  #delayMs: number
  #notBeforeMs = 0
  #openedAfter = 0
  #lastAlive = 0
  #running = 0
  #allowed = 0
  #alive = 0

  constructor(settings: CircuitSettings, random: Random) {
    this.#settings = settings
    this.#random = random
    this.#delayMs = settings.probe.delayMs
  }

  /** Runs allowed at once. */
  get allowed(): number {
    if (this.state === 'closed') return this.#settings.concurrency
    return this.state === 'open' ? 0 : this.#allowed
  }

  mayStart(elapsedMs: number): boolean {
    if (this.state === 'closed') return true
    if (this.state === 'open') return elapsedMs >= this.probeAtMs
    return this.#running < this.#allowed
  }

  /** A run starts, as `mayStart` has allowed. Returns its number. */
  start(): number {
    if (this.state === 'open') {
      this.state = 'half-open'
      this.#allowed = 1
    }
    this.#running++
    return ++this.started
  }

  /** Whether a run started since the breaker last opened. */
  isFresh(run: number): boolean {
    return run > this.#openedAfter
  }

  /** Whether a run that started after run number `run` had started has shown that the downstream is alive. */
  aliveSince(run: number): boolean {
    return this.#lastAlive > run
  }

  /** Whether the last that was heard of the downstream was a sign of life. */
  get soundsAlive(): boolean {
    return this.state === 'closed' && this.failures === 0 && this.#lastAlive > this.#openedAfter
  }

  /** A run has ended. `retryAfterMs`: how long the downstream wants to be left alone. */
  end(run: number, evidence: Evidence, elapsedMs: number, retryAfterMs = 0): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, elapsedMs + retryAfterMs)
    if (evidence === 'alive') this.#lastAlive = Math.max(this.#lastAlive, run)
    if (this.isFresh(run)) this.#endFresh(evidence, elapsedMs)
    else if (this.state === 'open') this.probeAtMs = Math.max(this.probeAtMs, this.#notBeforeMs)
  }

  #endFresh(evidence: Evidence, elapsedMs: number): void {
    this.#running--
    if (evidence === 'alive') this.#foundAlive()
    else if (evidence === 'none') this.#toldNothing()
    else this.#failed(evidence, elapsedMs)
  }

  #foundAlive(): void {
    this.failures = 0
    this.#notBeforeMs = 0
    if (this.state === 'half-open') this.#ramp(1)
    else if (this.state === 'ramping' && ++this.#alive >= this.#allowed) this.#ramp(this.#allowed * 2)
  }

  #ramp(allowed: number): void {
    this.state = allowed < this.#settings.concurrency ? 'ramping' : 'closed'
    this.#allowed = allowed
    this.#alive = 0
    if (this.state === 'closed') this.#delayMs = this.#settings.probe.delayMs
  }

  // A probe that told nothing is as good as none. Its time has come already.
  #toldNothing(): void {
    if (this.state === 'half-open') this.state = 'open'
  }

  #failed(evidence: 'outage' | 'repeated', elapsedMs: number): void {
    this.failures++
    const alone = evidence === 'outage' && this.state !== 'closed'
    if (alone || this.failures >= this.#settings.threshold) this.#open(elapsedMs)
    else this.#toldNothing()
  }

  #open(elapsedMs: number): void {
    const { delayMs, maxMs } = this.#settings.probe
    if (this.state === 'closed') this.#delayMs = delayMs
    else this.#delayMs = Math.min(maxMs, this.#delayMs * 2)
    this.state = 'open'
    this.failures = 0
    this.#running = 0
    this.#openedAfter = this.started
    const jitteredMs = Math.ceil(this.#delayMs * (1 - this.#random.number() / 2))
    this.probeAtMs = Math.max(elapsedMs + jitteredMs, this.#notBeforeMs)
  }
}
