/**
 * Two numbers in memory that the event loop and the writer thread share: when the event loop last turned, and for how
 * long its silence is trusted. The thread renews the process's leases while user code blocks the event loop, because a
 * long computation is not a crash; but a loop that stays silent for longer than any handler may run is taken for dead,
 * and its messages go to another process.
 */
/** How often the event loop says that it is alive. */
export const BEAT_MS = 250

const LAST_TURN = 0
const TRUST = 1

export class Liveness {
  readonly buffer: SharedArrayBuffer
  readonly #numbers: Float64Array

  constructor(buffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer
    this.#numbers = new Float64Array(buffer)
  }

  /** Called by the event loop: it is alive. */
  beat(nowMs: number): void {
    this.#numbers[LAST_TURN] = nowMs
  }

  /** Called by the event loop: its handlers may take so long. */
  trust(handlerTimeoutMs: number): void {
    this.#numbers[TRUST] = Math.max(this.#numbers[TRUST]!, handlerTimeoutMs)
  }

  /** Called by the thread: for how long the event loop has been silent beyond what it is trusted; 0 when it is not. */
  silentMs(nowMs: number): number {
    const silentMs = nowMs - this.#numbers[LAST_TURN]!
    // Between two beats the loop is silent without being blocked.
    return silentMs > this.#numbers[TRUST]! + 2 * BEAT_MS ? silentMs : 0
  }
}
