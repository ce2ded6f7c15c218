import type { Failure, StoredEvent } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import type { Item } from '../fetching/supply.ts'
import type { ConsumerSettings } from '../settings.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Abortable } from './abortable.ts'

/** What a batch handler is told about the batch at hand: its second argument. */
export interface BatchContext {
  /**
   * As for single messages; a lost lease aborts it even when it covers only a part of the batch, and cancelling once all
   * of the batch is cancelled.
   */
  readonly signal: AbortSignal
  /** The highest attempt among the batch's messages; `detailsOf` tells each one's own. */
  readonly attempt: number
  /** The highest crash count among the batch's messages. */
  readonly crashes: number
  readonly topic: string
  readonly subscription: string
  /** When the handler must be done, in milliseconds since the epoch. */
  readonly deadline: number
  /**
   * Marks one event as failed with `error`, which is treated as if a handler for this event alone had thrown it:
   * `Discard` and `RetryAfter` mean what they always mean. When the handler then returns, the others are acknowledged.
   * Throws POSTHORN_INVALID_OPTION when the event is not one of the batch.
   */
  fail(event: StoredEvent, error: unknown): void
  /** Where an event of the batch was stored and how often it failed. Errors as for `fail`. */
  detailsOf(event: StoredEvent): EventDetails
}

export interface EventDetails {
  readonly attempt: number
  readonly crashes: number
  readonly partition: number
  readonly offset: number
  /** The failures of earlier attempts, oldest first. */
  readonly failures: readonly Failure[]
}

/** Some messages on their way through a batch handler. */
export class BatchDelivery extends Abortable implements BatchContext {
  readonly items: readonly Item[]
  readonly deadline: number
  /** What failed by itself, by index of the item; the rest shares the handler's outcome. */
  readonly failed = new Map<number, unknown>()
  readonly #settings: ConsumerSettings
  #handed: readonly (StoredEvent | undefined)[]
  #indexes: Map<StoredEvent, number> | undefined

  constructor(items: readonly Item[], settings: ConsumerSettings, deadline: number) {
    super()
    this.items = items
    this.deadline = deadline
    this.#settings = settings
    this.#handed = items.map((item) => item.ledger.message(item.index).event)
  }

  /** The events by item; undefined where the check refused one. */
  get events(): readonly (StoredEvent | undefined)[] {
    return this.#handed
  }

  /** Puts what the check made of the events in their place. */
  replaceEvents(events: readonly (StoredEvent | undefined)[]): void {
    this.#handed = events
    this.#indexes = undefined
  }

  holds(ledger: GrantLedger): boolean {
    return this.items.some((item) => item.ledger === ledger)
  }

  // One cancelled message does not stop the others of its batch: only the last one that is left does.
  includes(item: Item): boolean {
    if (!this.holds(item.ledger)) return false
    return this.items.every(({ ledger, index }) => !ledger.isOpen(index))
  }

  get attempt(): number {
    return this.items.reduce((highest, { ledger }) => Math.max(highest, ledger.grant.attempt), 1)
  }

  get crashes(): number {
    return this.items.reduce((highest, { ledger }) => Math.max(highest, ledger.grant.crashes), 0)
  }

  get topic(): string {
    return this.#settings.topic
  }

  get subscription(): string {
    return this.#settings.subscription
  }

  fail(event: StoredEvent, error: unknown): void {
    this.failed.set(this.#indexOf(event), error)
  }

  detailsOf(event: StoredEvent): EventDetails {
    const { ledger, index } = this.items[this.#indexOf(event)]!
    const { attempt, crashes, partition, failures } = ledger.grant
    return { attempt, crashes, partition, offset: ledger.message(index).offset, failures }
  }

  #indexOf(event: StoredEvent): number {
    this.#indexes ??= indexesOf(this.#handed)
    const index = this.#indexes.get(event)
    if (index !== undefined) return index
    throw new PosthornError('POSTHORN_INVALID_OPTION', {
      option: 'event',
      problem: "it is not one of the batch's events; pass on the object that the handler was given",
    })
  }
}

function indexesOf(events: readonly (StoredEvent | undefined)[]): Map<StoredEvent, number> {
  const indexes = new Map<StoredEvent, number>()
  for (const [index, event] of events.entries()) {
    if (event !== undefined) indexes.set(event, index)
  }
  return indexes
}
