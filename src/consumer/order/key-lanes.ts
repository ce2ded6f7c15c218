/**
 * The supply of an ordered subscription: one message of a key at a time, the next one only when the engine has recorded
 * what became of it, so that not even a crash can bring an earlier message back after a later one was begun.
 *
 * Each message goes into the lane of its key within its partition. A lane with waiting messages and nothing out is
 * ready; ready lanes hand out in the order in which they became so. `take` puts the first message of a lane out, and it
 * is out until it is recorded, put back, or lost. Suspects go the same way, apart from the others.
 *
 * When a message ends in the store (to be tried again, set aside, or as a dead letter that blocks its key), what waits
 * behind it in memory is set aside in the same turn, and so within the same settlement call; what arrives later, at
 * once. What is given back (because its partition is to change hands, or its handler was told to stop) takes along what
 * waits behind it, and what arrives of the partition until the engine can hand it all out in order again. A lane that
 * owes its key to others in the store keeps one message until it can go there together with the word that frees them.
 *
 * What fails: a settlement call that fails leaves its messages out until it succeeds. A lost lease takes its messages out
 * of their lanes; what is known of the store stays until the partition is taken over again, which makes it worth at
 * most one detour of later messages.
 */
import { BoxMap } from '../../collections/box-map.ts'
import { Deque } from '../../collections/deque.ts'
import { BUFFERED_BYTES_MAX } from '../fetching/buffer.ts'
import type { End, Intake, Item, Witness } from '../fetching/supply.ts'
import { Suspects } from '../fetching/suspects.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { type Lane, LaneItem } from './lane.ts'
import { PartitionLanes } from './partition-lanes.ts'

// With many keys and fast handlers this many are needed for every key to have a message ready when its last is recorded.
const MESSAGES_MAX = 10_000

/** Where messages go that are not to be handled here now. */
export interface Store {
  /** Sets a message aside. */
  park(item: Item, until: 'chain' | 'freed'): void
  /** Gives a message back. */
  release(item: Item): void
}

export class KeyLanes implements Intake, Witness {
  readonly looksFurther = false
  /** Lanes that are ready. */
  count = 0
  readonly #store: Store
  readonly #pulls: () => number
  readonly #partitions = new Map<number, PartitionLanes>()
  readonly #items = new BoxMap<GrantLedger, readonly LaneItem[]>()
  /** Also lanes that are ready no more; those are passed over. */
  readonly #ready = new Deque<Lane>()
  readonly #suspects = new Suspects()
  /** Messages in lanes, and their size in the store. */
  #waiting = 0
  #bytes = 0
  /** Messages that were given back, which is not recorded yet. */
  #leaving = 0

  /** `pulls`: how many have been begun so far. */
  constructor(store: Store, pulls: () => number) {
    this.#store = store
    this.#pulls = pulls
  }

  get held(): boolean {
    return this.#suspects.held
  }

  get ahead(): number {
    return this.count
  }

  get blocked(): number {
    return this.#waiting - this.count
  }

  get full(): boolean {
    return this.#waiting >= MESSAGES_MAX || this.#bytes >= BUFFERED_BYTES_MAX
  }

  get leaving(): boolean {
    return this.#leaving > 0
  }

  /** Less than half of what may be held is. */
  get roomy(): boolean {
    return this.#waiting * 2 < MESSAGES_MAX && this.#bytes * 2 < BUFFERED_BYTES_MAX
  }

  get oldestArrivedAtMs(): number | undefined {
    for (let lane = this.#ready.first; lane !== undefined; lane = this.#ready.first) {
      if (lane.ready) return lane.first?.ledger.arrivedAtMs
      this.#ready.shift()
    }
    return undefined
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
    for (let lane = this.#ready.shift(); lane !== undefined; lane = this.#ready.shift()) {
      if (!lane.ready) continue
      this.#unready(lane)
      return this.#putOut(lane)
    }
    return undefined
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
    this.#insert(own)
    if (lane.first === own) this.#makeReady(lane, place)
    else this.#advance(lane)
  }

  ended(item: Item, end: End): void {
    const own = this.#own(item)
    if (own === undefined) return
    const { lane } = own
    own.outcome = outcomeOf(end)
    if (own.outcome === 'released') this.#released(own, lane)
    if (lane.key !== undefined) this.#ordered(own, lane, lane.key)
    const { partition } = lane
    if (partition.freed.length === 0 || end === 'recorded') return
    for (const key of partition.freed.splice(0)) item.ledger.free(key)
  }

  recorded(item: Item): void {
    const own = this.#own(item)
    if (own === undefined) return
    const { lane, outcome } = own
    if (own.leaving) {
      this.#leaving--
      lane.partition.left(this.#pulls())
    }
    if (outcome === 'done' && lane.key !== undefined) lane.partition.settled(lane.key, own.offset)
    if (lane.out !== own) return
    lane.out = undefined
    if (outcome === 'stored' && lane.key !== undefined) this.#returned(own, lane, lane.key)
    this.#advance(lane)
  }

  // What has come behind it meanwhile, or is still to come with the pull under way, was granted too early. If it is here
  // again itself, nothing of the kind can come any more.
  #returned(item: LaneItem, lane: Lane, key: string): void {
    const isBack = lane.first !== undefined && lane.first.offset <= item.offset
    if (!isBack) lane.partition.returned(key, item.offset, this.#pulls())
    for (const behind of lane.takeBehind(item.offset)) this.#setAside(behind, 'chain')
  }

  endExclusive(ledger: GrantLedger): boolean {
    this.#items.take(ledger)
    return this.#suspects.endExclusive(ledger)
  }

  drop(ledger: GrantLedger): void {
    this.#suspects.drop(ledger)
    const items = this.#items.take(ledger) ?? []
    for (const item of items) if (item.leaving) this.#stay(item)
    for (const lane of new Set(items.map((item) => item.lane))) {
      this.#withdraw(lane, (item) => item.ledger === ledger)
      if (lane.out?.ledger === ledger) lane.out = undefined
      this.#freeIfEmpty(lane)
      this.#advance(lane)
    }
  }

  cancel(item: Item): void {
    const own = this.#own(item)
    if (own === undefined) return
    this.#suspects.drop(item.ledger)
    this.#withdraw(own.lane, (other) => other === own)
    this.#advance(own.lane)
  }

  withdraw(partitions: ReadonlySet<number>): readonly Item[] {
    const leaves = ({ ledger }: Item) => partitions.has(ledger.grant.partition)
    const left = [...this.#partitions].flatMap(([number, partition]) => (partitions.has(number) ? partition : []))
    const ready = this.#ready.takeWhere(({ partition }) => left.includes(partition))
    const lanes = new Set([...left.flatMap((partition) => partition.lanes()), ...ready])
    return [...[...lanes].flatMap((lane) => this.#vacate(lane)), ...this.#suspects.takeWhere(leaves)]
  }

  drain(): readonly Item[] {
    const lanes = new Set([...this.lanes(), ...this.#ready.takeAll()])
    const items = [...lanes].flatMap((lane) => this.#withdraw(lane, () => true))
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
    this.#insert(item)
    if (lane.ready && ledger.grant.isolated && lane.first === item) this.#unready(lane)
    this.#advance(lane)
  }

  #turnsBack(item: LaneItem): boolean {
    const { lane, ledger } = item
    if (lane.partition.isLeft(ledger.pull)) {
      this.#leave(item)
      this.#store.release(item)
      return true
    }
    if (lane.key === undefined || !this.#waitsInStore(item, lane.key)) return false
    this.#store.park(item, 'chain')
    return true
  }

  // Takes out what waits in a lane, to be given back.
  #vacate(lane: Lane): readonly LaneItem[] {
    if (!lane.owed) {
      const items = this.#withdraw(lane, () => true)
      if (lane.out === undefined) lane.partition.close(lane)
      for (const item of items) this.#leave(item)
      return items
    }
    this.spill(lane, 1)
    if (lane.ready) this.#unready(lane)
    this.#advance(lane)
    return []
  }

  #leave(item: LaneItem): void {
    item.leaving = true
    item.lane.partition.leaving++
    this.#leaving++
  }

  #stay(item: LaneItem): void {
    item.leaving = false
    item.lane.partition.leaving--
    this.#leaving--
  }

  #released(item: LaneItem, lane: Lane): void {
    if (!item.leaving) this.#leave(item)
    if (lane.out === item) for (const behind of this.#vacate(lane)) this.#store.release(behind)
  }

  #waitsInStore({ lane: { partition }, ledger, offset }: LaneItem, key: string): boolean {
    if (ledger.grant.setAside) return partition.crosses(key, offset, ledger.pull)
    return partition.storedBefore(key, offset)
  }

  // What follows from the end of a message for its key.
  #ordered(item: LaneItem, lane: Lane, key: string): void {
    if (item.outcome === 'stored') {
      lane.partition.store(key, item.offset)
      if (lane.out === item) for (const behind of lane.takeBehind(item.offset)) this.#setAside(behind, 'chain')
    }
    if (item.outcome !== 'released' || lane.out === item) this.#freeIfEmpty(lane)
  }

  #setAside(item: LaneItem, until: 'chain' | 'freed'): void {
    this.#countOut(item)
    this.#store.park(item, until)
  }

  #freeIfEmpty(lane: Lane): void {
    if (!lane.owed || lane.waiting > 0 || lane.key === undefined) return
    lane.owed = false
    lane.partition.freed.push(lane.key)
  }

  // Makes a lane ready that can be, and forgets one that is empty.
  #advance(lane: Lane): void {
    if (lane.out !== undefined || lane.ready) return
    if (lane.first === undefined) lane.partition.close(lane)
    // It is about to be dropped, too.
    else if (lane.first.ledger.lost) return
    else if (lane.owed && lane.waiting === 1) this.#returnLast(lane)
    else if (lane.first.ledger.grant.isolated) this.#suspects.add(this.#putOut(lane)!)
    else this.#makeReady(lane, 'last')
  }

  #makeReady(lane: Lane, place: 'first' | 'last'): void {
    lane.ready = true
    this.count++
    if (place === 'first') this.#ready.unshift(lane)
    else this.#ready.push(lane)
  }

  // The last one here goes to the others in the store, and with it the word that they may go on. It could run here, but
  // then the word might have no settlement to go with: a transaction commits, and a cancellation ends, without one.
  #returnLast(lane: Lane): void {
    const last = lane.shift()!
    lane.out = last
    this.#setAside(last, 'chain')
  }

  #putOut(lane: Lane): LaneItem | undefined {
    const item = lane.shift()
    if (item !== undefined) this.#countOut(item)
    lane.out = item
    lane.handedOut++
    return item
  }

  #unready(lane: Lane): void {
    lane.ready = false
    this.count--
  }

  #withdraw(lane: Lane, test: (item: LaneItem) => boolean): readonly LaneItem[] {
    const items = lane.takeWhere(test)
    for (const item of items) this.#countOut(item)
    if (items.length > 0 && lane.ready && lane.first === undefined) this.#unready(lane)
    return items
  }

  #insert(item: LaneItem): void {
    item.lane.insert(item)
    this.#waiting++
    this.#bytes += item.ledger.messageBytes
  }

  #countOut(item: LaneItem): void {
    this.#waiting--
    // Averages leave fractions behind.
    this.#bytes = this.#waiting === 0 ? 0 : this.#bytes - item.ledger.messageBytes
  }

  #own({ ledger, index }: Item): LaneItem | undefined {
    return this.#items.get(ledger)?.[index]
  }

  #partition(number: number): PartitionLanes {
    const existing = this.#partitions.get(number)
    if (existing !== undefined) return existing
    const partition = new PartitionLanes()
    this.#partitions.set(number, partition)
    return partition
  }
}

function outcomeOf(end: End): LaneItem['outcome'] {
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
