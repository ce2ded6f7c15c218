/**
 * The messages of one key that are in memory: those that wait, in offset order, and the one that is out: taken, or
 * ended and not yet recorded. A message without a key has a lane to itself. Linked through the items, because most
 * lanes are short-lived and hold one message.
 */
import type { End, Item } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { PartitionLanes } from './partition-lanes.ts'

export class LaneItem implements Item {
  readonly ledger: GrantLedger
  readonly index: number
  readonly lane: Lane
  /** What became of it: settled for good; in the store (set aside, or blocking its key); or given back. */
  outcome: 'open' | 'done' | 'stored' | 'released' = 'open'
  /** It is on its way back to the store, and its partition waits for that. */
  leaving = false
  next: LaneItem | undefined = undefined

  constructor(ledger: GrantLedger, index: number, lane: Lane) {
    this.ledger = ledger
    this.index = index
    this.lane = lane
  }

  get offset(): number {
    return this.ledger.message(this.index).offset
  }
}

export class Lane {
  readonly partition: PartitionLanes
  readonly key: string | undefined
  first: LaneItem | undefined = undefined
  /** Messages that wait. */
  waiting = 0
  out: LaneItem | undefined = undefined
  /** It is in line to hand out its first message. */
  ready = false
  /** Messages handed out so far, now and when somebody last looked. */
  handedOut = 0
  seenHandedOut = 0
  /** Others of the key were set aside until what is here has ended. */
  owed = false
  #last: LaneItem | undefined = undefined

  constructor(partition: PartitionLanes, key: string | undefined) {
    this.partition = partition
    this.key = key
  }

  insert(item: LaneItem): void {
    this.waiting++
    const last = this.#last
    if (last === undefined || last.offset < item.offset) this.#insertAfter(last, item)
    else this.#insertAfter(this.#before(item.offset), item)
  }

  /** Takes out the first one. */
  shift(): LaneItem | undefined {
    const item = this.first
    if (item !== undefined) this.#cutAt(undefined, item)
    return item
  }

  /** Takes out all but the first `kept` ones. */
  takeBeyond(kept: number): LaneItem[] {
    let position = 0
    return this.takeWhere(() => position++ >= kept)
  }

  /** Takes out what is behind an offset. */
  takeBehind(offset: number): LaneItem[] {
    if (this.#last === undefined || this.#last.offset < offset) return []
    return this.takeWhere((item) => item.offset > offset)
  }

  takeWhere(test: (item: LaneItem) => boolean): LaneItem[] {
    const taken: LaneItem[] = []
    let before: LaneItem | undefined
    for (let item = this.first; item !== undefined; ) {
      const { next }: LaneItem = item
      if (test(item)) taken.push(this.#cutAt(before, item))
      else before = item
      item = next
    }
    return taken
  }

  /** When nothing waits here any more, those that it owes its key to can have it. */
  freeIfEmpty(): void {
    if (!this.owed || this.waiting > 0 || this.key === undefined) return
    this.owed = false
    this.partition.freed.push(this.key)
  }

  #before(offset: number): LaneItem | undefined {
    let before: LaneItem | undefined
    for (let item = this.first; item !== undefined && item.offset < offset; item = item.next) before = item
    return before
  }

  #insertAfter(before: LaneItem | undefined, item: LaneItem): void {
    item.next = before === undefined ? this.first : before.next
    if (before === undefined) this.first = item
    else before.next = item
    if (item.next === undefined) this.#last = item
  }

  #cutAt(before: LaneItem | undefined, item: LaneItem): LaneItem {
    if (before === undefined) this.first = item.next
    else before.next = item.next
    if (item.next === undefined) this.#last = before
    item.next = undefined
    this.waiting--
    return item
  }
}

export function outcomeOf(end: End): LaneItem['outcome'] {
  if (end === 'acked' || end === 'recorded') return 'done'
  switch (end.kind) {
    case 'retry':
    case 'park':
      return 'stored'
    case 'dead':
      return end.blocks === true ? 'stored' : 'done'
    case 'release':
      return 'released'
  }
}
