/**
 * The messages that wait for the same limits, in order of arrival, and the permissions that they have to start.
 *
 * A permission is coming, then usable, then used up or lapsed. Each answer of the engine brings some in order of their
 * time, and the next answer later ones; one that is out of order is noticed when it is the first.
 */
import { Deque } from '../../collections/deque.ts'
import type { Buckets } from '../../engine.ts'
import type { Item } from '../fetching/supply.ts'

/** By `Clock.elapsedMs`. */
export interface Permission {
  readonly fromMs: number
  readonly untilMs: number
}

export class Bucket {
  readonly id: string
  readonly buckets: Buckets
  readonly waiting = new Deque<Item>()
  /** A suspect waits for it, apart from the others. */
  suspected = false
  /** It is in line to start a message. */
  inLine = false
  /** It is part of the question under way. */
  asked = false
  /** Not to be asked about before: there was no room. */
  againAtMs = Number.NEGATIVE_INFINITY
  /** The number of the question that it was last part of. */
  askedLast = 0
  /** When the turn of the next message that is set aside comes, about. */
  turnAtMs = Number.NEGATIVE_INFINITY
  readonly #coming = new Deque<Permission>()
  readonly #usable = new Deque<Permission>()

  constructor(id: string, buckets: Buckets) {
    this.id = id
    this.buckets = buckets
  }

  /** Permissions in hand. */
  get permissions(): number {
    return this.#coming.length + this.#usable.length
  }

  /** Messages that could start, if they had permission. */
  get wanting(): number {
    return this.waiting.length + Number(this.suspected) - this.permissions
  }

  get idle(): boolean {
    return this.waiting.length === 0 && this.permissions === 0 && !this.asked && !this.suspected
  }

  /** The engine had no room for any of its messages when it was last asked. */
  get refused(): boolean {
    return this.againAtMs > Number.NEGATIVE_INFINITY && this.permissions === 0
  }

  /** Messages that could start at the last `pass`. */
  get startable(): number {
    return Math.min(this.#usable.length, this.waiting.length)
  }

  /** Of its first usable permission; infinity: it has none. */
  get usableSinceMs(): number {
    return this.#usable.first?.fromMs ?? Number.POSITIVE_INFINITY
  }

  admit(permissions: readonly Permission[]): void {
    for (const permission of permissions) this.#coming.push(permission)
  }

  /** Uses up a permission, if there is one. */
  use(): boolean {
    return this.#usable.shift() !== undefined
  }

  /** Time has passed: says how many permissions have lapsed. */
  pass(nowMs: number): number {
    for (let { first } = this.#coming; first !== undefined && first.fromMs <= nowMs; first = this.#coming.first) {
      this.#coming.shift()
      this.#usable.push(first)
    }
    let lapsed = 0
    for (let { first } = this.#usable; first !== undefined && first.untilMs < nowMs; first = this.#usable.first) {
      this.#usable.shift()
      lapsed++
    }
    return lapsed
  }

  /** When something is to be done about it next, after `pass`. */
  nextMs(nowMs: number): number {
    const usableMs = this.#coming.first?.fromMs ?? Number.POSITIVE_INFINITY
    const againMs = this.wanting > 0 && this.againAtMs > nowMs ? this.againAtMs : Number.POSITIVE_INFINITY
    const lapsesMs = this.#usable.first === undefined ? Number.POSITIVE_INFINITY : this.#usable.first.untilMs + 1
    return Math.min(usableMs, againMs, lapsesMs)
  }
}
