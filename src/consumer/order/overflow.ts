/**
 * Keeps a few slow keys from filling the memory with what waits behind them, so that nothing of other keys could be
 * fetched. When the lanes are full and others starve for it, what waits in lanes that will not get through it soon goes
 * back to the store until the rest of the lane has ended: from the longest lanes first, until half of the room is free.
 *
 * States: idle; watching, with a timer, as long as the lanes are full: lanes are looked at every 100 ms. Many keys with
 * fast handlers fill the lanes as well, and none of them is slow, however long the store takes to record what has ended:
 * it would take longer still if it were given all of these messages back, a row each. So a lane is slow when one handler
 * has been at work in it since the time before; or when it has more than ten seconds of work waiting, at the pace since
 * then, and it is a handler that it waits for, or a limit: or the store, where there are so few keys that half of the
 * handlers have none.
 */
import type { Clock, Timer } from '../../environment/index.ts'
import type { KeyLanes } from './key-lanes.ts'
import type { Lane } from './lane.ts'

const LOOK_INTERVAL_MS = 100
const LOOKS_IN_TEN_SECONDS = 100

// What a lane keeps, first of all: enough to be going on with while the others are freed.
const KEPT_AT_FIRST = 10

export class Overflow {
  readonly #lanes: KeyLanes
  readonly #clock: Clock
  readonly #concurrency: number
  readonly #starving: () => boolean
  #timer: Timer | undefined
  #stopped = false

  /**
   * `starving`: handlers are free, or are to be shared with other tenants, and only messages that were not fetched yet
   * could make use of them.
   */
  constructor(lanes: KeyLanes, clock: Clock, concurrency: number, starving: () => boolean) {
    this.#lanes = lanes
    this.#clock = clock
    this.#concurrency = concurrency
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
    if (this.#lanes.full && this.#starving()) this.#spill(this.#slow())
    this.watch()
  }

  #slow(): readonly Lane[] {
    const lanes = this.#lanes.lanes()
    const busy = lanes.filter(({ out }) => out !== undefined).length
    const areFew = busy * 2 <= this.#concurrency
    return lanes.filter((lane) => lane.waiting > 1 && (isStuck(lane) || (isLong(lane) && (areFew || isAtWork(lane)))))
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

function isStuck(lane: Lane): boolean {
  return isAtWork(lane) && lane.handedOut === lane.seenHandedOut
}

/** What is out of it has not ended. */
function isAtWork({ out }: Lane): boolean {
  return out?.outcome === 'open'
}

function isLong({ waiting, handedOut, seenHandedOut }: Lane): boolean {
  return waiting > (handedOut - seenHandedOut) * LOOKS_IN_TEN_SECONDS
}
