/**
 * Counts the pulls of each subscription, so that what cannot be granted all at once takes turns. Each has its own count:
 * one that others move too might always be found at the same turn.
 */
export class Turns {
  readonly #turns = new Map<number, number>()

  next(subscriptionId: number): number {
    const turn = this.#turns.get(subscriptionId) ?? 0
    this.#turns.set(subscriptionId, turn + 1)
    return turn
  }
}
