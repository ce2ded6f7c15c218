/**
 * Keeps a few slow keys from filling the memory with what waits behind them, so that nothing of other keys could be
 * fetched. When the lanes are full and others starve for it, what waits in lanes that will not get through it soon goes
 * back to the store until the rest of the lane has ended: from the longest lanes first, until half of the room is free.
 *
 * States: idle; watching, with a timer, as long as the lanes are full: lanes are looked at every 100 ms, and one that at
 * the pace since the time before has more than a second's work waiting is slow. Many keys with fast handlers fill the
 * lanes as well, and none of them is: where a handler has ended, it is the store that the lane waits for, and it would
 * wait longer for a store that was given all these messages back. Only with many of them waiting does it keep others out.
 */
import type { Clock, Timer } from '../../environment/index.ts'
import type { KeyLanes } from './key-lanes.ts'
import type { Lane } from './lane.ts'

const LOOK_INTERVAL_MS = 100
const LOOKS_PER_SECOND = 10

// What a lane keeps, first of all: enough to be going on with while the others are freed.
const KEPT_AT_FIRST = 10

// So long that a hundred lanes of this length are all that can be held.
const LONG = 100

export class Overflow {
  readonly #lanes: KeyLanes
  readonly #clock: Clock
  readonly #starving: () => boolean
  #timer: Timer | undefined
  #stopped = false

  /**
   * `starving`: handlers are free, or are to be shared with other tenants, and only messages that were not fetched yet
   * could make use of them.
   */
  constructor(lanes: KeyLanes, clock: Clock, starving: () => boolean) {
    this.#lanes = lanes
    this.#clock = clock
    this.#starving = starving
  }

  /** Messages have come. */
  watch(): void {
    if (this.#timer !== undefined || this.#stopped || !this.#lanes.full) return
    for (const lane of this.#lanes.lanes()) lane.seenHandedOut = lane.handedOut
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

function isSlow({ waiting, handedOut, seenHandedOut, out }: Lane): boolean {
  const isBehind = waiting > 1 && waiting > (handedOut - seenHandedOut) * LOOKS_PER_SECOND
  return isBehind && (waiting > LONG || out?.outcome === 'open')
}
