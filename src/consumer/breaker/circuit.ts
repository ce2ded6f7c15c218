/**
 * The decisions of a breaker, without timers and messages. Times are those of `Clock.elapsedMs`. Handler calls ("runs")
 * are numbered in the order in which they start, from 1.
 *
 * - closed: everything may start. `threshold` outages in a row, with no sign of life from any run between them, open it.
 * - open: nothing starts until `probeAtMs`. Then the next run is the probe.
 * - half-open: the probe runs, and nothing else starts. A sign of life leads to ramping, an outage to open, for twice as
 *   long as before; if it told nothing (its message was invalid, its lease was lost), another one may start at once.
 * - ramping: 1, 2, 4, ... runs at once, doubled after as many signs of life as are allowed at once, until `concurrency`
 *   is reached: then it is closed. As many outages in a row as are allowed at once open it, for twice as long as before:
 *   at least two, since one message may have failed for itself, and at most `threshold`.
 *
 * Repeated failures, of messages that have failed before, tell next to nothing one by one: while half-open, another
 * message may be probed at once. But that could go on for ever when no other messages are left. So a long row of them
 * opens it, too.
 *
 * Invariants: of the runs that started since it last opened (the *fresh* ones) there is never more than one while it is
 * half-open, and never more than are allowed while it is ramping. Runs from before that change nothing but how long it stays
 * open, when they bring a Retry-After.
 */
import type { Random } from '../../environment/index.ts'

export type CircuitState = 'closed' | 'open' | 'half-open' | 'ramping'

// In thresholds: repeated failures in a row that open it, when they go on for so many probe delays as well. After a
// restart, hundreds of retries may be due before anything else.
const REPEATED_MAX = 10
const REPEATED_DELAYS_MAX = 5
// The same while half-open, however soon: it is the outage that has to be disproved.
const REPEATED_PROBES_MAX = 2

/** What a run told about the downstream. `repeated`: only outages of messages that have failed before. */
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
  /** Outages and repeated failures since the last sign of life, or since it opened. */
  failures = 0
  /** Of these, the repeated failures. */
  repeated = 0
  /** Runs that have started. */
  started = 0
  readonly #settings: CircuitSettings
  readonly #random: Random
  #delayMs: number
  /** When the first repeated failure of the row happened. */
  #repeatedSinceMs = 0
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

  /** How long repeated failures in a row may go on at least. */
  get repeatedMaxMs(): number {
    return REPEATED_DELAYS_MAX * this.#settings.probe.delayMs
  }

  /** A run has ended. `retryAfterMs`: how long the downstream wants to be left alone. */
  end(run: number, evidence: Evidence, elapsedMs: number, retryAfterMs = 0): void {
    const notBeforeMs = Math.max(this.#notBeforeMs, elapsedMs + retryAfterMs)
    // One host of many, which turns its own messages away, has no say in when the others are tried.
    if (evidence !== 'repeated') this.#notBeforeMs = notBeforeMs
    if (evidence === 'alive') this.#lastAlive = Math.max(this.#lastAlive, run)
    if (this.isFresh(run)) this.#endFresh(evidence, elapsedMs, notBeforeMs)
    else if (this.state === 'open') this.probeAtMs = Math.max(this.probeAtMs, this.#notBeforeMs)
  }

  #endFresh(evidence: Evidence, elapsedMs: number, notBeforeMs: number): void {
    this.#running--
    if (evidence === 'alive') this.#foundAlive()
    else if (evidence === 'none') this.#toldNothing()
    else if (this.#isEnough(evidence, elapsedMs)) this.#open(elapsedMs, notBeforeMs)
    else this.#toldNothing()
  }

  #foundAlive(): void {
    this.#forgive()
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

  #isEnough(evidence: 'outage' | 'repeated', elapsedMs: number): boolean {
    this.failures++
    if (evidence === 'outage') return this.failures - this.repeated >= this.#outagesMax
    if (this.repeated++ === 0) this.#repeatedSinceMs = elapsedMs
    return this.#areEnough(elapsedMs - this.#repeatedSinceMs)
  }

  #areEnough(repeatedMs: number): boolean {
    const { threshold } = this.#settings
    if (this.state === 'half-open') return this.repeated >= REPEATED_PROBES_MAX * threshold
    return this.repeated >= REPEATED_MAX * threshold && repeatedMs >= this.repeatedMaxMs
  }

  get #outagesMax(): number {
    const { threshold } = this.#settings
    if (this.state === 'half-open') return 1
    return this.state === 'closed' ? threshold : Math.min(threshold, Math.max(2, this.#allowed))
  }

  #forgive(): void {
    this.failures = 0
    this.repeated = 0
  }

  #open(elapsedMs: number, notBeforeMs: number): void {
    const { delayMs, maxMs } = this.#settings.probe
    if (this.state === 'closed') this.#delayMs = delayMs
    else this.#delayMs = Math.min(maxMs, this.#delayMs * 2)
    this.state = 'open'
    this.#forgive()
    this.#running = 0
    this.#openedAfter = this.started
    const jitteredMs = Math.ceil(this.#delayMs * (1 - this.#random.number() / 2))
    this.probeAtMs = Math.max(elapsedMs + jitteredMs, notBeforeMs)
  }
}
