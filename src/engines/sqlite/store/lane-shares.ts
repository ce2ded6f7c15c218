import { PRIORITY_WEIGHTS, type Priority } from '../../../engine.ts'

/** In the order of their partitions' numbers. */
export const LANES: readonly Priority[] = ['normal', 'high', 'low']

/** The order in which what they are given is handed over. */
const BY_PRIORITY = [1, 0, 2]

/**
 * Divides the room of pulls among the lanes of a topic by their weights. What a lane is due beyond whole messages is kept
 * for the next pull, so that with room for one message at a time each lane still gets its share. A lane without messages
 * is due nothing: it saves nothing up.
 */
export class LaneShares {
  readonly #credits = new Map<number, number[]>()

  /** How many of `room` messages each of the `lanes` that have some may take, the most urgent first. */
  divide(subscriptionId: number, lanes: ReadonlySet<number>, room: number): { lane: number; room: number }[] {
    const urgent = BY_PRIORITY.filter((lane) => lanes.has(lane))
    if (urgent.length < 2) return urgent.map((lane) => ({ lane, room }))
    const credits = this.#creditsOf(subscriptionId)
    const total = urgent.reduce((sum, lane) => sum + weightOf(lane), 0)
    for (let lane = 0; lane < credits.length; lane++) {
      credits[lane] = lanes.has(lane) ? credits[lane]! + (room * weightOf(lane)) / total : 0
    }
    const shares = urgent.map((lane) => ({ lane, room: Math.max(0, Math.floor(credits[lane]!)) }))
    let rest = room - shares.reduce((sum, share) => sum + share.room, 0)
    const byRest = shares.toSorted((one, other) => restOf(credits, other) - restOf(credits, one))
    for (const share of byRest) if (rest-- > 0) share.room++
    for (const share of shares) credits[share.lane]! -= share.room
    return shares
  }

  #creditsOf(subscriptionId: number): number[] {
    let credits = this.#credits.get(subscriptionId)
    if (!credits) {
      credits = [0, 0, 0]
      this.#credits.set(subscriptionId, credits)
    }
    return credits
  }
}

function weightOf(lane: number): number {
  return PRIORITY_WEIGHTS[LANES[lane]!]
}

function restOf(credits: readonly number[], share: { lane: number; room: number }): number {
  return credits[share.lane]! - share.room
}
