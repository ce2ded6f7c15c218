/**
 * Publishes a sequence of any length with bounded memory and no promise per message.
 *
 * State: how many messages were stored (`published`), how many of the sequence are queued or under way
 * (`outstanding`), and the first failure. Invariant: the sequence is asked for no more while `outstanding` is at its
 * limit, or the connection's buffer is half full, so a bulk never fails because the buffer is full and leaves room for
 * others. What other topics' full backlogs hold back is not counted, or one topic would bring all to a halt. After the first failure nothing more is taken; the call ends once all that was outstanding is settled, so
 * that the count it reports is exact.
 */
import type { AppendReceipt } from '../engine.ts'
import { PosthornError } from '../errors.ts'
import type { Waiter } from './lane.ts'
import {
  type BulkOptions,
  type Directions,
  noDirections,
  type PublishOptions,
  readBulkOptions,
} from './publish-options.ts'
import type { Writer } from './writer.ts'

// Enough to keep two commits under way while the next fill. More would only give the garbage collector more to copy.
const OUTSTANDING_MAX = 4_000

/** What became of a bulk. */
export interface BulkResult {
  /** Messages stored, duplicates not included. */
  readonly published: number
  /** Messages whose id was published before, within the topic's `deduplicateFor`. */
  readonly duplicates: number
}

/** Options for all messages of a bulk, or a function that gives them for each. */
export type BulkEach =
  | BulkOptions
  | ((payload: never, index: number) => Omit<PublishOptions, 'tx'> | undefined)
  | undefined

export interface BulkTarget {
  readonly topic: string
  readonly bufferedBytesMax: number
  readonly writer: Pick<Writer, 'progress'>
  /** What is buffered now, in bytes, as far as it is in the way. */
  bufferedBytes(): number
  now(): number
  /** The payload to store, or a promise of it. Throws or rejects when the payload does not fit. */
  validate(payload: unknown): unknown
  add(payload: unknown, directions: Directions, nowMs: number, waiter: Waiter): void
}

export async function publishBulk(
  target: BulkTarget,
  payloads: Iterable<unknown> | AsyncIterable<unknown>,
  each: BulkEach,
): Promise<BulkResult> {
  // What is wrong with all of them is an error of the call, and not of its first message.
  if (typeof each === 'object') readBulkOptions(each, target.now(), false)
  const bulk = new Bulk(target, each)
  try {
    if (Symbol.iterator in payloads) await bulk.takeAll(payloads)
    else await bulk.takeAllAsync(payloads)
  } catch (error) {
    bulk.failed(error, 0)
  }
  return bulk.finish()
}

class Bulk implements Waiter {
  readonly #target: BulkTarget
  readonly #each: BulkEach
  #published = 0
  #duplicates = 0
  #outstanding = 0
  #index = 0
  #failure: { readonly error: unknown } | undefined

  constructor(target: BulkTarget, each: BulkEach) {
    this.#target = target
    this.#each = each
  }

  /** Of `Waiter`. */
  stored(_id: string, receipt: AppendReceipt): void {
    this.#outstanding--
    if (receipt.duplicate) this.#duplicates++
    else this.#published++
  }

  /** Of `Waiter`; `messages` is how many of the outstanding ones this is about. */
  failed(error: unknown, messages = 1): void {
    this.#outstanding -= messages
    this.#failure ??= { error }
  }

  // A loop of its own: `for await` over an array would spend more time on promises than everything else together.
  async takeAll(payloads: Iterable<unknown>): Promise<void> {
    for (const payload of payloads) {
      if (this.#full) await this.#room()
      if (this.#failure !== undefined) return
      const added = this.#take(payload)
      if (added !== undefined) await added
    }
  }

  async takeAllAsync(payloads: AsyncIterable<unknown>): Promise<void> {
    for await (const payload of payloads) {
      if (this.#full) await this.#room()
      if (this.#failure !== undefined) return
      const added = this.#take(payload)
      if (added !== undefined) await added
    }
  }

  async finish(): Promise<BulkResult> {
    while (this.#outstanding > 0) await this.#target.writer.progress()
    if (this.#failure !== undefined) throw this.#interrupted(this.#failure.error)
    return { published: this.#published, duplicates: this.#duplicates }
  }

  get #full(): boolean {
    return this.#outstanding >= OUTSTANDING_MAX || this.#target.bufferedBytes() > this.#target.bufferedBytesMax
  }

  async #room(): Promise<void> {
    while (this.#full && this.#failure === undefined) await this.#target.writer.progress()
  }

  #take(payload: unknown): Promise<void> | undefined {
    const nowMs = this.#target.now()
    const directions = this.#directionsFor(payload, nowMs)
    const validated = this.#target.validate(payload)
    if (!(validated instanceof Promise)) return this.#add(validated, directions, nowMs)
    return validated.then((output) => this.#add(output, directions, nowMs))
  }

  #add(payload: unknown, directions: Directions, nowMs: number): undefined {
    this.#target.add(payload, directions, nowMs, this)
    this.#outstanding++
  }

  #directionsFor(payload: unknown, nowMs: number): Directions {
    const each = this.#each
    const index = this.#index++
    if (each === undefined) return noDirections
    if (typeof each !== 'function') return readBulkOptions(each, nowMs, false)
    const options = each(payload as never, index)
    return options === undefined ? noDirections : readBulkOptions(options, nowMs, true)
  }

  #interrupted(cause: unknown): PosthornError {
    const problem = cause instanceof Error ? cause.message : String(cause)
    const details = { topic: this.#target.topic, published: this.#published, duplicates: this.#duplicates, problem }
    return new PosthornError('POSTHORN_BULK_INTERRUPTED', details, { cause })
  }
}
