/**
 * Keeps handlers that finish without ever waiting from holding up the event loop: so many starts, and so much time,
 * within one turn of the loop. When the budget is spent, `spend` says `false` and `onTurn` is called once the loop has
 * been round. A consumer whose turns are short never notices: its budget is renewed in passing.
 */
const STARTS_MAX = 4_096
const TURN_MS_MAX = 25

export class TurnBudget {
  readonly #onTurn: () => void
  #startsLeft = 0
  #untilMs = 0
  /** The turn in which the budget was renewed is not over. */
  #sameTurn = false
  #refused = false

  constructor(onTurn: () => void) {
    this.#onTurn = onTurn
  }

  /** Whether one more handler may be started in this turn; the time is that of `Clock.elapsedMs`. */
  spend(elapsedMs: number): boolean {
    if (this.#startsLeft > 0 && elapsedMs < this.#untilMs) {
      this.#startsLeft--
      return true
    }
    if (this.#sameTurn) {
      this.#refused = true
      return false
    }
    this.#renew(elapsedMs)
    return true
  }

  #renew(elapsedMs: number): void {
    this.#startsLeft = STARTS_MAX - 1
    this.#untilMs = elapsedMs + TURN_MS_MAX
    this.#sameTurn = true
    setImmediate(() => this.#endTurn())
  }

  #endTurn(): void {
    this.#sameTurn = false
    if (!this.#refused) return
    this.#refused = false
    this.#startsLeft = 0
    this.#onTurn()
  }
}
