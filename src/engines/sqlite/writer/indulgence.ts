/**
 * Other processes' sessions are given up only while this process can tell that they had their chance to renew them.
 * A file that was locked for long, a machine that slept and a clock that jumped forward keep everybody from renewing;
 * whoever notices one of them on itself leaves the others some time first.
 *
 * A session that has run out is spared like that `TIMES_MAX` times at most, unless it is renewed meanwhile: where
 * handlers hold the lock of the file again and again, nothing else would ever end the session of a dead process.
 */

/** How long the others have for renewing their sessions. */
const INDULGENCE_MS = 500
const TIMES_MAX = 5

export class Indulgence {
  #beganMs = Number.NEGATIVE_INFINITY
  #untilMs = Number.NEGATIVE_INFINITY
  #times = 0
  /** Sessions that have run out, each with the number of times there were when it was first seen so. */
  readonly #lost = new Map<number, number>()

  /** Until now, something has kept the others from renewing their sessions. */
  begin(nowMs: number): void {
    // Noticed again at once, it is the same time still; but not for ever.
    if (nowMs >= this.#beganMs + INDULGENCE_MS) {
      this.#times++
      this.#beganMs = nowMs
    }
    this.#untilMs = nowMs + INDULGENCE_MS
  }

  /** Told of all sessions that have run out, whenever they are looked for. */
  note(lost: readonly number[]): void {
    for (const sessionId of this.#lost.keys()) if (!lost.includes(sessionId)) this.#lost.delete(sessionId)
    for (const sessionId of lost) if (!this.#lost.has(sessionId)) this.#lost.set(sessionId, this.#times)
  }

  /** Whether a session that has run out has some time left. */
  spares(sessionId: number, nowMs: number): boolean {
    const sparedBefore = this.#times - (this.#lost.get(sessionId) ?? this.#times)
    return nowMs < this.#untilMs && sparedBefore <= TIMES_MAX
  }
}
