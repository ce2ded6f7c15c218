/**
 * The places that messages in flight hold, for the limits that count them. A message takes its place when it starts, and
 * leaves it when its handler has ended; a place is also left when a permission was not used. What was left is kept
 * here until the engine has been told: told of nothing twice, and nothing is forgotten when a call fails.
 */
import { BoxMap } from '../../collections/box-map.ts'
import type { Buckets, FinishedMessages } from '../../engine.ts'
import type { Item } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { Bucket } from './bucket.ts'

interface Left {
  readonly buckets: Buckets
  messages: number
}

export class Places {
  readonly #held = new BoxMap<GrantLedger, Map<number, Bucket>>()
  #left = new Map<string, Left>()

  /** Whether there are places that the engine has not been told of. */
  get untold(): boolean {
    return this.#left.size > 0
  }

  /** The buckets of the places that the engine has not been told of. */
  left(): readonly Buckets[] {
    return [...this.#left.values()].map(({ buckets }) => buckets)
  }

  enter({ ledger, index }: Item, bucket: Bucket): void {
    const ofLedger = this.#held.get(ledger)
    if (ofLedger === undefined) this.#held.set(ledger, new Map([[index, bucket]]))
    else ofLedger.set(index, bucket)
  }

  /** Does nothing when the message holds no place. */
  leave({ ledger, index }: Item): void {
    const ofLedger = this.#held.get(ledger)
    const bucket = ofLedger?.get(index)
    if (ofLedger === undefined || bucket === undefined) return
    ofLedger.delete(index)
    if (ofLedger.size === 0) this.#held.take(ledger)
    this.leaveUnused(bucket, 1)
  }

  leaveAll(ledger: GrantLedger): void {
    for (const bucket of this.#held.take(ledger)?.values() ?? []) this.leaveUnused(bucket, 1)
  }

  leaveUnused(bucket: Bucket, messages: number): void {
    this.#add({ buckets: bucket.buckets, messages }, bucket.id)
  }

  /** What the engine is to be told. To be followed by `restore` if that fails. */
  take(): ReadonlyMap<string, FinishedMessages> {
    const left = this.#left
    this.#left = new Map()
    return left
  }

  restore(untold: ReadonlyMap<string, FinishedMessages>): void {
    for (const [id, finished] of untold) this.#add(finished, id)
  }

  #add({ buckets, messages }: FinishedMessages, id: string): void {
    const left = this.#left.get(id)
    if (left === undefined) this.#left.set(id, { buckets, messages })
    else left.messages += messages
  }
}
