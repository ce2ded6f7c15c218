/**
 * Keeps a few slow keys from filling the memory with what waits behind them, so that nothing of other keys could be
 * fetched. When the lanes are full and handlers starve, what waits in lanes whose message has been out for a while goes
 * back to the store until the rest of the lane has ended: from the longest lanes first, until half of the room is free.
 *
 * States: idle; watching, with a timer, as long as the lanes are full: lanes are looked at every 100 ms, and one that
 * has the same message out as the time before is slow. With fast handlers lanes may be full all the time, and none is.
 */
import type { Clock, Timer } from '../../environment/index.ts'
import type { KeyLanes } from './key-lanes.ts'
import type { Lane } from './lane.ts'

const LOOK_INTERVAL_MS = 100

// What a lane keeps, first of all: enough to be going on with while the others are freed.
const KEPT_AT_FIRST = 10

export class Overflow {
  readonly #lanes: KeyLanes
  readonly #clock: Clock
  readonly #starving: () => boolean
  #timer: Timer | undefined
  #stopped = false

  /** `starving`: handlers are free, and only messages that were not fetched yet could keep them busy. */
  constructor(lanes: KeyLanes, clock: Clock, starving: () => boolean) {
    this.#lanes = lanes
    this.#clock = clock
    this.#starving = starving
  }

  /** Messages have come. */
  watch(): void {
    if (this.#timer !== undefined || this.#stopped || !this.#lanes.full) return
    for (const lane of this.#lanes.lanes()) lane.seenOut = lane.out
    this.#timer = this.#clock.setTimer(LOOK_INTERVAL_MS, () => this.#look())
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #look(): void {
    this.#timer = undefined
    if (this.#lanes.full && this.#starving()) this.#spill(this.#lanes.lanes().filter(isSlow))
    this.watch()
  }

  #spill(lanes: readonly Lane[]): void {
    const longestFirst = lanes.toSorted((one, other) => other.waiting - one.waiting)
    for (const kept of [KEPT_AT_FIRST, 1]) {
      for (const lane of longestFirst) {
        if (this.#lanes.roomy) return
        this.#lanes.spill(lane, kept)
      }
    }
  }
}

// What has ended is on its way to be recorded, and that is as slow for all.
function isSlow({ out, seenOut, waiting }: Lane): boolean {
  return out !== undefined && out === seenOut && out.outcome === 'open' && waiting > 1
}
