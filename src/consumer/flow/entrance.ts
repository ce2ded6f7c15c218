/**
 * How messages get from the supply behind into the queues of their buckets, or to be the suspect whose turn it is: their
 * events pass their check, then their limits are told. One that fails at either is rejected. A check that ends later
 * brings its message in then; until that it can be taken out as if it waited already.
 */
import type { Intake, Item } from '../fetching/supply.ts'
import type { SupplyHost } from '../fetching/supply-line.ts'
import type { Bucket } from './bucket.ts'
import { bucketsOf } from './classifier.ts'
import { SuspectTurn } from './suspect-turn.ts'
import type { WaitingRoom } from './waiting-room.ts'

export class Entrance {
  readonly suspect = new SuspectTurn()
  readonly #base: Intake
  readonly #room: WaitingRoom
  readonly #host: SupplyHost
  readonly #onEntered: () => void

  /** `onEntered`: a message has come in later. */
  constructor(base: Intake, room: WaitingRoom, host: SupplyHost, onEntered: () => void) {
    this.#base = base
    this.#room = room
    this.#host = host
    this.#onEntered = onEntered
  }

  /** Messages under check. */
  get underCheck(): number {
    return this.#host.checks?.count ?? 0
  }

  /** Fills the queues with what the supply behind has. */
  draw(): void {
    while (!this.#room.full && this.#host.checks?.full !== true && !this.#base.held) {
      const item = this.#base.take()
      if (item === undefined) return
      this.admit(item, 'last')
    }
  }

  admit(item: Item, place: 'first' | 'last'): void {
    this.#check(item, (bucket) => this.#room.add(bucket, item, place))
  }

  /** Fetches the next suspect, if there is one. */
  drawSuspect(): void {
    const item = this.#base.takeSuspect(0)
    if (item === undefined) return
    this.suspect.begin(item)
    this.#check(item, (bucket) => this.suspect.wait(bucket))
  }

  takeWhere(test: (item: Item) => boolean): readonly Item[] {
    const suspects = this.suspect.takeWhere(test)
    // A suspect is there as well, while it is under check.
    const underCheck = this.#host.checks?.takeWhere(test).filter((item) => !suspects.includes(item)) ?? []
    return [...this.#room.takeWhere(test), ...underCheck, ...suspects]
  }

  #check(item: Item, onPassed: (bucket: Bucket) => void): void {
    const classify = (): void => {
      const bucket = this.#classify(item)
      if (bucket !== undefined) onPassed(bucket)
    }
    const classifyLater = (): void => {
      classify()
      this.#onEntered()
    }
    const { checks } = this.#host
    if (checks === undefined || checks.begin(item, classifyLater)) classify()
  }

  #classify(item: Item): Bucket | undefined {
    try {
      return this.#room.bucket(bucketsOf(this.#host.settings.limits, item.ledger.message(item.index).event))
    } catch (error) {
      this.#host.reject(item, error)
      return undefined
    }
  }
}
