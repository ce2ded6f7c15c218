/**
 * Numbers in memory that the event loop shares with the thread that renews its session: when the event loop last turned,
 * for how long its silence is trusted, and until when the leases hold. A long computation is not a crash, so the thread
 * renews the session while user code blocks the event loop; but a loop that stays silent for longer than any handler may
 * run is taken for dead, and its messages go to another process.
 *
 * Spans of time are measured by `Clock.elapsedMs`, which nobody sets. The end of the leases is kept by the wall clock as
 * well, and the earlier one counts: one of the two stands still while the machine sleeps.
 */
import type { Clock } from '../../../environment/index.ts'

/** How often the event loop says that it is alive. */
export const BEAT_MS = 250

const LAST_TURN = 0
const TRUST = 1
const UNTIL = 2
const UNTIL_BY_WALL = 3
const RENEWED = 4
const SILENT = 5
const NUMBERS = 6

export class Life {
  readonly buffer: SharedArrayBuffer
  readonly #clock: Clock
  readonly #numbers: Float64Array

  constructor(clock: Clock, buffer = new SharedArrayBuffer(NUMBERS * Float64Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer
    this.#clock = clock
    this.#numbers = new Float64Array(buffer)
  }

  /** Called by the event loop: it is alive. */
  beat(): void {
    this.#numbers[LAST_TURN] = this.#clock.elapsedMs()
  }

  /** Called by the event loop: its handlers may take so long. */
  trust(handlerTimeoutMs: number): void {
    this.#numbers[TRUST] = Math.max(this.#numbers[TRUST]!, handlerTimeoutMs)
  }

  get leasedUntilMs(): number {
    const leftMs = this.#numbers[UNTIL]! - this.#clock.elapsedMs()
    return Math.floor(Math.min(this.#numbers[UNTIL_BY_WALL]!, this.#clock.now() + leftMs))
  }

  /** The session was renewed, by a statement that was sent at these times. */
  extend(sent: { readonly atMs: number; readonly elapsedMs: number }, leaseMs: number): void {
    this.#numbers[UNTIL_BY_WALL] = sent.atMs + leaseMs
    this.#numbers[UNTIL] = sent.elapsedMs + leaseMs
    this.#numbers[RENEWED] = sent.elapsedMs
    this.#numbers[SILENT] = 0
  }

  /** Called by whoever renews: for how long the event loop has been silent beyond what it is trusted; 0 when it is not. */
  noteSilence(): number {
    const silentMs = this.#clock.elapsedMs() - this.#numbers[LAST_TURN]!
    // Between two beats the loop is silent without being blocked.
    if (silentMs <= this.#numbers[TRUST]! + 2 * BEAT_MS) return 0
    this.#numbers[SILENT] = silentMs
    return silentMs
  }

  /** What kept the session from being renewed. */
  whyLost(): string {
    const silentMs = Math.round(this.#numbers[SILENT]!)
    if (silentMs > 0) return `the event loop did not turn for ${silentMs} ms`
    return `it was not renewed for ${Math.round(this.#clock.elapsedMs() - this.#numbers[RENEWED]!)} ms`
  }
}
