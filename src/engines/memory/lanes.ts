import { PRIORITY_WEIGHTS, type Priority } from '../../engine.ts'

/** In the order of their partitions' numbers: each has as many as its topic. */
export const LANES: readonly Priority[] = ['normal', 'high', 'low']

/** In the order in which messages of one pull are handed over. */
export const BY_URGENCY: readonly Priority[] = ['high', 'normal', 'low']

/**
 * Picks lanes in turn, by their weights, spread evenly: after 21 picks among all three, each has had its share. The
 * credit of a lane is what it is owed; one that has no messages is owed nothing.
 */
export class LaneRotation {
  readonly #credits = new Map<Priority, number>()

  /** `lanes`: those that have messages, at least one. */
  pick(lanes: readonly Priority[]): Priority {
    const total = lanes.reduce((sum, lane) => sum + PRIORITY_WEIGHTS[lane], 0)
    for (const lane of LANES) {
      this.#credits.set(lane, lanes.includes(lane) ? this.#creditOf(lane) + PRIORITY_WEIGHTS[lane] : 0)
    }
    const picked = lanes.reduce((best, lane) => (this.#creditOf(lane) > this.#creditOf(best) ? lane : best))
    this.#credits.set(picked, this.#creditOf(picked) - total)
    return picked
  }

  #creditOf(lane: Priority): number {
    return this.#credits.get(lane) ?? 0
  }
}
