/**
 * Numbers in memory that the event loop and the writer thread share: when the event loop last turned, for how long its
 * silence is trusted, and until when the process's leases hold. The thread renews the process's leases while user code blocks the event loop, because a
 * long computation is not a crash; but a loop that stays silent for longer than any handler may run is taken for dead,
 * and its messages go to another process.
 */
/** How often the event loop says that it is alive. */
export const BEAT_MS = 250

const LAST_TURN = 0
const TRUST = 1
const LEASED_UNTIL = 2
const LOSSES = 3

export class Liveness {
  readonly buffer: SharedArrayBuffer
  readonly #numbers: Float64Array

  constructor(buffer = new SharedArrayBuffer(32)) {
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

  /** How many sessions the event loop knows to be lost. */
  get losses(): number {
    return this.#numbers[LOSSES]!
  }

  get leasedUntilMs(): number {
    return this.#numbers[LEASED_UNTIL]!
  }

  /**
   * Called by the thread: the leases of its session hold until then, and so many sessions were lost before it. Means
   * nothing as long as the event loop has not heard of them all, because it would take their leases for good.
   */
  extend(leasedUntilMs: number, losses: number): void {
    if (losses === this.losses) this.#numbers[LEASED_UNTIL] = leasedUntilMs
  }

  /** Called by the event loop: it has heard that a session was lost, and until when the next one's leases hold. */
  noteLoss(leasedUntilMs: number): void {
    this.#numbers[LOSSES] = this.losses + 1
    this.#numbers[LEASED_UNTIL] = leasedUntilMs
  }

  /** Called by the thread: for how long the event loop has been silent beyond what it is trusted; 0 when it is not. */
  silentMs(nowMs: number): number {
    const silentMs = nowMs - this.#numbers[LAST_TURN]!
    // Between two beats the loop is silent without being blocked.
    return silentMs > this.#numbers[TRUST]! + 2 * BEAT_MS ? silentMs : 0
  }
}
