/**
 * Messages that are on their way back to the store because they were given back: from the moment on when that is decided,
 * until it is recorded, or their lease is lost. Meanwhile nothing new is fetched, and what comes of their partitions goes
 * back too.
 */
import type { Item } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { LaneItem } from './lane.ts'

/** Where messages go that are not to be handled here now. */
export interface Store {
  /** Sets a message aside. */
  park(item: Item, until: 'chain' | 'freed'): void
  /** Gives a message back. */
  release(item: Item): void
  /** Settles what a ledger has to say beside of what became of its messages. */
  tell(ledger: GrantLedger): void
}

export class Departures {
  count = 0

  begin(item: LaneItem): void {
    item.leaving = true
    item.lane.partition.leaving++
    this.count++
  }

  /** Recorded, and `pulls` have been begun so far. */
  end(item: LaneItem, pulls: number): void {
    item.leaving = false
    this.count--
    item.lane.partition.left(pulls)
  }

  /** Its lease is lost. */
  stay(item: LaneItem): void {
    item.leaving = false
    item.lane.partition.leaving--
    this.count--
  }
}
