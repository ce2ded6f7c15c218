/**
 * The line of lanes that can hand out a message, and how much waits in all lanes together.
 *
 * A lane is *ready* while it stands in the line; lanes hand out in the order in which they became so. Lanes that are ready
 * no more stay in the line until their turn comes, and are passed over then.
 */
import { Deque } from '../../collections/deque.ts'
import { BUFFERED_BYTES_MAX } from '../fetching/buffer.ts'
import type { Lane, LaneItem } from './lane.ts'

// With many keys and fast handlers this many are needed for every key to have a message ready when its last is recorded.
const MESSAGES_MAX = 10_000

export class WaitingLanes {
  /** Lanes that are ready. */
  ready = 0
  /** Messages that wait in lanes, ready or not. */
  messages = 0
  /** Their size in the store. */
  #bytes = 0
  readonly #line = new Deque<Lane>()

  get full(): boolean {
    return this.messages >= MESSAGES_MAX || this.#bytes >= BUFFERED_BYTES_MAX
  }

  /** Less than half of what may be held is. */
  get roomy(): boolean {
    return this.messages * 2 < MESSAGES_MAX && this.#bytes * 2 < BUFFERED_BYTES_MAX
  }

  /** The lane whose turn is next. */
  get first(): Lane | undefined {
    for (let lane = this.#line.first; lane !== undefined; lane = this.#line.first) {
      if (lane.ready) return lane
      this.#line.shift()
    }
    return undefined
  }

  /** Takes the next lane out of the line, which is ready no more. */
  next(): Lane | undefined {
    const lane = this.first
    if (lane === undefined) return undefined
    this.#line.shift()
    this.unready(lane)
    return lane
  }

  makeReady(lane: Lane, place: 'first' | 'last'): void {
    lane.ready = true
    this.ready++
    if (place === 'first') this.#line.unshift(lane)
    else this.#line.push(lane)
  }

  unready(lane: Lane): void {
    lane.ready = false
    this.ready--
  }

  insert(item: LaneItem): void {
    item.lane.insert(item)
    this.messages++
    this.#bytes += item.ledger.messageBytes
  }

  /** Takes the first message out of a lane. */
  shift(lane: Lane): LaneItem | undefined {
    const item = lane.shift()
    if (item !== undefined) this.countOut(item)
    return item
  }

  /** Takes messages out of a lane. */
  withdraw(lane: Lane, test: (item: LaneItem) => boolean): readonly LaneItem[] {
    const items = lane.takeWhere(test)
    for (const item of items) this.countOut(item)
    if (items.length > 0 && lane.ready && lane.first === undefined) this.unready(lane)
    return items
  }

  /** A message was taken out of its lane. */
  countOut(item: LaneItem): void {
    this.messages--
    // Averages leave fractions behind.
    this.#bytes = this.messages === 0 ? 0 : this.#bytes - item.ledger.messageBytes
  }

  /** Takes lanes out of the line; they stay ready. */
  takeWhere(test: (lane: Lane) => boolean): readonly Lane[] {
    return this.#line.takeWhere(test)
  }
}
