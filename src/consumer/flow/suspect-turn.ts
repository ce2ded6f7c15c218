import type { Item } from '../fetching/supply.ts'
import type { Bucket } from './bucket.ts'

/** The suspect whose turn it is: it has none, or one under check, or one that waits for permission in its bucket. */
export class SuspectTurn {
  #item: Item | undefined
  #bucket: Bucket | undefined

  get item(): Item | undefined {
    return this.#item
  }

  /** Undefined: its check is still to end. */
  get bucket(): Bucket | undefined {
    return this.#bucket
  }

  begin(item: Item): void {
    this.#item = item
  }

  /** It has passed its check. */
  wait(bucket: Bucket): void {
    this.#bucket = bucket
    bucket.suspected = true
  }

  end(): void {
    if (this.#bucket !== undefined) this.#bucket.suspected = false
    this.#bucket = undefined
    this.#item = undefined
  }

  takeWhere(test: (item: Item) => boolean): readonly Item[] {
    const item = this.#item
    if (item === undefined || !test(item)) return []
    this.end()
    return [item]
  }
}
