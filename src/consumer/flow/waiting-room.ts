/**
 * The buckets that have messages or permissions, and how much waits in them.
 *
 * Buckets with permissions are in line. Each starts one message when its turn comes and goes to the end of the line, so
 * that none keeps another from its share of the handlers.
 */
import { Deque } from '../../collections/deque.ts'
import type { Item } from '../fetching/supply.ts'
import { Bucket } from './bucket.ts'
import { idOf } from './classifier.ts'

// Enough to find out who else waits behind a crowd, and little enough to be set aside in one go.
const MESSAGES_MAX = 2_000
const BYTES_MAX = 16 * 1024 * 1024

export class WaitingRoom {
  waiting = 0
  #bytes = 0
  readonly #buckets = new Map<string, Bucket>()
  readonly #line = new Deque<Bucket>()
  readonly #onLapsed: (bucket: Bucket, permissions: number) => void

  constructor(onLapsed: (bucket: Bucket, permissions: number) => void) {
    this.#onLapsed = onLapsed
  }

  /** Buckets that have messages or permissions. */
  get size(): number {
    return this.#buckets.size
  }

  get full(): boolean {
    return this.waiting >= MESSAGES_MAX || this.#bytes >= BYTES_MAX
  }

  /** At most half of the room is taken. */
  get roomy(): boolean {
    return this.waiting * 2 <= MESSAGES_MAX && this.#bytes * 2 <= BYTES_MAX
  }

  /** How many messages more than half of those that may wait. */
  get surplus(): number {
    return this.waiting - MESSAGES_MAX / 2
  }

  /** When the oldest message was granted, by `Clock.elapsedMs`; infinity: there is none. */
  get oldestArrivedAtMs(): number {
    const oldest = (ms: number, { waiting }: Bucket) =>
      Math.min(ms, waiting.first?.ledger.arrivedAtMs ?? Number.POSITIVE_INFINITY)
    return this.buckets().reduce(oldest, Number.POSITIVE_INFINITY)
  }

  /** As above, of the messages that could start at the last `look`. */
  get oldestStartableMs(): number | undefined {
    return least(this.#startable().map(({ waiting }) => waiting.first!.ledger.arrivedAtMs))
  }

  /** Since when one of these has had permission. */
  get usableSinceMs(): number | undefined {
    return least(this.#startable().map(({ usableSinceMs }) => usableSinceMs))
  }

  buckets(): readonly Bucket[] {
    return [...this.#buckets.values()]
  }

  bucket(buckets: readonly string[]): Bucket {
    const id = idOf(buckets)
    const existing = this.#buckets.get(id)
    if (existing !== undefined) return existing
    const bucket = new Bucket(id, buckets)
    this.#buckets.set(id, bucket)
    return bucket
  }

  add(bucket: Bucket, item: Item, place: 'first' | 'last'): void {
    if (place === 'first') bucket.waiting.unshift(item)
    else bucket.waiting.push(item)
    this.waiting++
    this.#bytes += item.ledger.messageBytes
  }

  /** The next message that may start now, and its bucket, which has one permission less. */
  start(nowMs: number): { item: Item; bucket: Bucket } | undefined {
    for (let left = this.#line.length; left > 0; left--) {
      const bucket = this.#line.shift()!
      bucket.inLine = false
      this.#pass(bucket, nowMs)
      const item = bucket.waiting.length > 0 && bucket.use() ? bucket.waiting.shift() : undefined
      if (item !== undefined) this.#countOut(item)
      this.#enroll(bucket)
      if (item !== undefined) return { item, bucket }
    }
    return undefined
  }

  /** What may start now, and when that is to be looked at again. */
  look(nowMs: number): { startable: number; againAtMs: number } {
    let startable = 0
    let againAtMs = Number.POSITIVE_INFINITY
    for (const bucket of this.#buckets.values()) {
      this.#pass(bucket, nowMs)
      this.#enroll(bucket)
      startable += bucket.startable
      againAtMs = Math.min(againAtMs, bucket.nextMs(nowMs))
    }
    return { startable, againAtMs }
  }

  /** Takes out the last `messages` of a bucket, in order of arrival. */
  takeLast(bucket: Bucket, messages: number): readonly Item[] {
    const items: Item[] = []
    while (items.length < messages) {
      const item = bucket.waiting.pop()
      if (item === undefined) break
      this.#countOut(item)
      items.push(item)
    }
    return items.reverse()
  }

  takeAll(): readonly Item[] {
    return this.takeWhere(() => true)
  }

  takeWhere(test: (item: Item) => boolean): readonly Item[] {
    const items = [...this.#buckets.values()].flatMap((bucket) => bucket.waiting.takeWhere(test))
    for (const item of items) this.#countOut(item)
    return items
  }

  #startable(): readonly Bucket[] {
    return this.buckets().filter(({ startable }) => startable > 0)
  }

  #pass(bucket: Bucket, nowMs: number): void {
    const lapsed = bucket.pass(nowMs)
    if (lapsed > 0) this.#onLapsed(bucket, lapsed)
  }

  // What has permissions stands in line; what nothing needs any more is forgotten.
  #enroll(bucket: Bucket): void {
    if (bucket.idle && this.#buckets.get(bucket.id) === bucket) this.#buckets.delete(bucket.id)
    if (bucket.permissions === 0 || bucket.inLine) return
    bucket.inLine = true
    this.#line.push(bucket)
  }

  #countOut(item: Item): void {
    this.waiting--
    // Averages leave fractions behind.
    this.#bytes = this.waiting === 0 ? 0 : this.#bytes - item.ledger.messageBytes
  }
}

function least(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.min(...values)
}
