/**
 * The supply of an ordered subscription: one message of a key at a time, the next one only when the engine has recorded
 * what became of it, so that not even a crash can bring an earlier message back after a later one was begun.
 *
 * States of a message: waiting, in the lane of its key within its partition; out, from `take` on, until it is recorded,
 * put back, or lost; on its way back to the store, or to the log (`Departures`). States of a lane: empty; ready, when
 * messages wait and nothing is out; busy. Ready lanes hand out in the order in which they became so (`WaitingLanes`).
 * Suspects go the same way, apart from the others.
 *
 * Invariants:
 * - No more than one message of a lane is out, and none is taken before an earlier one that is here.
 * - What waits behind a message that ends in the store (to be tried again, set aside, or as a dead letter that blocks its
 *   key) is set aside in the same turn, and so within the same settlement call. What arrives later of the key turns back
 *   at once, until nothing can come any more that was granted ahead of the message (`PartitionLanes`, `GivenUp`).
 * - What is given back (because its partition is to change hands, or its handler was told to stop) takes along what waits
 *   behind it, and what arrives of the partition until the engine can hand it all out in order again.
 * - A lane that owes its key to others in the store keeps one message until it can go there together with the word that
 *   frees them. When that one is cancelled, the word goes alone.
 *
 * What fails: a settlement call that fails leaves its messages out until it succeeds. A lost lease takes its messages out
 * of their lanes; what is known of the store stays until the partition is taken over again, which makes it worth at
 * most one detour of later messages.
 */
import { BoxMap } from '../../collections/box-map.ts'
import type { End, Intake, Item, Witness } from '../fetching/supply.ts'
import { Suspects } from '../fetching/suspects.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Departures, type Store } from './departures.ts'
import { type Lane, LaneItem, outcomeOf } from './lane.ts'
import { PartitionLanes } from './partition-lanes.ts'
import { WaitingLanes } from './waiting-lanes.ts'

export class KeyLanes implements Intake, Witness {
  readonly looksFurther = false
  readonly #store: Store
  readonly #pulls: () => number
  readonly #partitions = new Map<number, PartitionLanes>()
  readonly #items = new BoxMap<GrantLedger, readonly LaneItem[]>()
  readonly #waiting = new WaitingLanes()
  readonly #departures = new Departures()
  readonly #suspects = new Suspects()

  /** `pulls`: how many have been begun so far. */
  constructor(store: Store, pulls: () => number) {
    this.#store = store
    this.#pulls = pulls
  }

  get held(): boolean {
    return this.#suspects.held
  }

  /** Lanes that are ready. */
  get count(): number {
    return this.#waiting.ready
  }

  get ahead(): number {
    return this.#waiting.ready
  }

  get blocked(): number {
    return this.#waiting.messages - this.#waiting.ready
  }

  get full(): boolean {
    return this.#waiting.full
  }

  get leaving(): boolean {
    return this.#departures.count > 0
  }

  /** Less than half of what may be held is. */
  get roomy(): boolean {
    return this.#waiting.roomy
  }

  get oldestArrivedAtMs(): number | undefined {
    return this.#waiting.first?.first?.ledger.arrivedAtMs
  }

  add(ledger: GrantLedger): void {
    const { partition: number, takeover, messages } = ledger.grant
    const partition = this.#partition(number)
    if (takeover !== undefined) partition.takeOver(takeover)
    const items = messages.map(({ event }, index) => new LaneItem(ledger, index, partition.laneOf(event.subject)))
    this.#items.set(ledger, items)
    for (const item of items) this.#place(item)
  }

  take(): Item | undefined {
    const lane = this.#waiting.next()
    return lane && this.#putOut(lane)
  }

  takeSuspect(running: number): Item | undefined {
    return this.#suspects.take(running)
  }

  prepare(): void {}

  setDown(): void {}

  putBack(item: Item, place: 'first' | 'last'): void {
    const own = this.#own(item)
    if (own === undefined || this.#suspects.putBack(item.ledger)) return
    const { lane } = own
    lane.out = undefined
    this.#waiting.insert(own)
    if (lane.first === own) this.#waiting.makeReady(lane, place)
    else this.#advance(lane)
  }

  ended(item: Item, end: End): void {
    const own = this.#own(item)
    if (own === undefined) return
    const { lane } = own
    own.outcome = outcomeOf(end)
    if (own.outcome === 'released') this.#released(own, lane)
    this.#ordered(own, lane)
    const { partition } = lane
    if (partition.freed.length === 0 || end === 'recorded') return
    for (const key of partition.freed.splice(0)) item.ledger.free(key)
  }

  recorded(item: Item): void {
    const own = this.#own(item)
    if (own === undefined) return
    const { lane } = own
    if (own.leaving) this.#departures.end(own, this.#pulls())
    lane.partition.recorded(own, this.#pulls())
    if (lane.out !== own) return
    lane.out = undefined
    this.#advance(lane)
  }

  endExclusive(ledger: GrantLedger): boolean {
    this.#items.take(ledger)
    return this.#suspects.endExclusive(ledger)
  }

  drop(ledger: GrantLedger): void {
    this.#suspects.drop(ledger)
    const items = this.#items.take(ledger) ?? []
    for (const item of items) this.#lost(item)
    for (const lane of new Set(items.map((item) => item.lane))) {
      this.#waiting.withdraw(lane, (item) => item.ledger === ledger)
      if (lane.out?.ledger === ledger) lane.out = undefined
      lane.freeIfEmpty()
      this.#advance(lane)
    }
  }

  cancel(item: Item): void {
    const own = this.#own(item)
    if (own === undefined) return
    this.#suspects.drop(item.ledger)
    this.#waiting.withdraw(own.lane, (other) => other === own)
    this.#tellFreed(own)
    this.#advance(own.lane)
  }

  withdraw(partitions: ReadonlySet<number>): readonly Item[] {
    const leaves = ({ ledger }: Item) => partitions.has(ledger.grant.partition)
    const left = [...this.#partitions].flatMap(([number, partition]) => (partitions.has(number) ? partition : []))
    const ready = this.#waiting.takeWhere(({ partition }) => left.includes(partition))
    const lanes = new Set([...left.flatMap((partition) => partition.lanes()), ...ready])
    return [...[...lanes].flatMap((lane) => this.#vacate(lane)), ...this.#suspects.takeWhere(leaves)]
  }

  drain(): readonly Item[] {
    const lanes = new Set([...this.lanes(), ...this.#waiting.takeWhere(() => true)])
    const items = [...lanes].flatMap((lane) => this.#waiting.withdraw(lane, () => true))
    return [...items, ...this.#suspects.drain()]
  }

  /** Of keys that have something in memory. */
  lanes(): readonly Lane[] {
    return [...this.#partitions.values()].flatMap((partition) => partition.lanes())
  }

  /** Sets aside all but the first `kept` messages of a lane, until those have ended. At least one has to be kept. */
  spill(lane: Lane, kept: number): void {
    const items = lane.takeBeyond(kept)
    if (items.length > 0) lane.owed = true
    for (const item of items) this.#setAside(item, 'freed')
  }

  #place(item: LaneItem): void {
    const { lane, ledger } = item
    if (this.#turnsBack(item)) {
      if (lane.waiting === 0 && lane.out === undefined) lane.partition.close(lane)
      return
    }
    this.#waiting.insert(item)
    if (lane.ready && ledger.grant.isolated && lane.first === item) this.#waiting.unready(lane)
    this.#advance(lane)
  }

  #turnsBack(item: LaneItem): boolean {
    const { lane, ledger } = item
    if (lane.partition.isLeft(ledger.pull)) {
      this.#departures.begin(item)
      this.#store.release(item)
      return true
    }
    if (!lane.partition.waitsInStore(item)) return false
    this.#store.park(item, 'chain')
    return true
  }

  // Takes out what waits in a lane, to be given back.
  #vacate(lane: Lane): readonly LaneItem[] {
    if (!lane.owed) {
      const items = this.#waiting.withdraw(lane, () => true)
      if (lane.out === undefined) lane.partition.close(lane)
      for (const item of items) this.#departures.begin(item)
      return items
    }
    this.spill(lane, 1)
    if (lane.ready) this.#waiting.unready(lane)
    this.#advance(lane)
    return []
  }

  #released(item: LaneItem, lane: Lane): void {
    if (!item.leaving) this.#departures.begin(item)
    if (lane.out === item) for (const behind of this.#vacate(lane)) this.#store.release(behind)
  }

  // What follows from the end of a message for its key.
  #ordered(item: LaneItem, lane: Lane): void {
    if (item.outcome === 'stored') {
      lane.partition.store(item, this.#pulls())
      if (lane.out === item) for (const behind of lane.takeBehind(item.offset)) this.#setAside(behind, 'chain')
    }
    if (item.outcome !== 'released' || lane.out === item) lane.freeIfEmpty()
  }

  // Nothing of it will be recorded.
  #lost(item: LaneItem): void {
    if (item.leaving) this.#departures.stay(item)
    item.lane.partition.lost(item)
  }

  #setAside(item: LaneItem, until: 'chain' | 'freed'): void {
    this.#waiting.countOut(item)
    this.#store.park(item, until)
  }

  // With a cancellation no settlement comes, and perhaps never another one of the partition. What is said is said again
  // with the next one, for the case that this one comes too late for its lease.
  #tellFreed({ lane, ledger }: LaneItem): void {
    lane.freeIfEmpty()
    const { freed } = lane.partition
    for (const key of freed) ledger.free(key)
    if (freed.length > 0) this.#store.tell(ledger)
  }

  // Makes a lane ready that can be, and forgets one that is empty.
  #advance(lane: Lane): void {
    if (lane.out !== undefined || lane.ready) return
    if (lane.first === undefined) lane.partition.close(lane)
    // It is about to be dropped, too.
    else if (lane.first.ledger.lost) return
    else if (lane.owed && lane.waiting === 1) this.#returnLast(lane)
    else if (lane.first.ledger.grant.isolated) this.#suspects.add(this.#putOut(lane)!)
    else this.#waiting.makeReady(lane, 'last')
  }

  // The last one here goes to the others in the store, and with it the word that they may go on. It could run here, but
  // then the word might have no settlement to go with: a transaction commits, and a cancellation ends, without one.
  #returnLast(lane: Lane): void {
    const last = lane.shift()!
    lane.out = last
    this.#setAside(last, 'chain')
  }

  #putOut(lane: Lane): LaneItem | undefined {
    const item = this.#waiting.shift(lane)
    lane.out = item
    lane.handedOut++
    return item
  }

  #own({ ledger, index }: Item): LaneItem | undefined {
    return this.#items.get(ledger)?.[index]
  }

  #partition(number: number): PartitionLanes {
    const partition = this.#partitions.get(number) ?? new PartitionLanes()
    this.#partitions.set(number, partition)
    return partition
  }
}
