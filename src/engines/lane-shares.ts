import { PRIORITY_WEIGHTS, type Priority } from '../engine.ts'

/** The lanes in the order of their partitions' numbers: each has as many as its topic. */
export const LANES: readonly Priority[] = ['normal', 'high', 'low']

/** In the order in which the messages of one pull are handed over. */
export const BY_URGENCY: readonly Priority[] = ['high', 'normal', 'low']

export interface LaneShare {
  readonly lane: Priority
  readonly room: number
}

/**
 * Divides the room of pulls among the lanes of a topic by their weights, evenly spread ("start-time fair queueing"). Each
 * lane has a time of its own, which a message moves on by 1 / weight, and the lane that is furthest behind is next. So
 * with room for one message at a time each lane still gets its share.
 *
 * A lane that had no messages for a while is not further behind than the one that was picked last: it has saved nothing
 * up. What it had beyond its share is at most one message, so it is not kept waiting for long either, however often it
 * comes and goes.
 */
export class LaneShares {
  readonly #times = new Map<Priority, number>(LANES.map((lane) => [lane, 0]))
  #now = 0

  /** The lane of the next message, of those that have some: at least one. */
  pick(lanes: readonly Priority[]): Priority {
    const urgent = BY_URGENCY.filter((lane) => lanes.includes(lane))
    for (const lane of urgent) this.#times.set(lane, Math.max(this.#timeOf(lane), this.#now))
    const picked = urgent.reduce((best, lane) => (this.#timeOf(lane) < this.#timeOf(best) ? lane : best))
    this.#now = this.#timeOf(picked)
    this.#times.set(picked, this.#now + 1 / PRIORITY_WEIGHTS[picked])
    return picked
  }

  /** How many messages each lane may take, the most urgent lane first. `waiting`: how many each has, about. */
  divide(waiting: ReadonlyMap<Priority, number>, room: number): LaneShare[] {
    const shares = BY_URGENCY.map((lane) => ({ lane, room: 0, waiting: waiting.get(lane) ?? 0 }))
    for (let left = room; left > 0; left--) {
      const open = shares.filter((share) => share.room < share.waiting)
      if (open.length < 2) {
        for (const share of open) share.room += Math.min(left, share.waiting - share.room)
        break
      }
      const picked = this.pick(open.map(({ lane }) => lane))
      for (const share of open) if (share.lane === picked) share.room++
    }
    return shares.filter((share) => share.room > 0)
  }

  #timeOf(lane: Priority): number {
    return this.#times.get(lane)!
  }
}
