import type { Failure } from '../../engine.ts'
import type { ConsumerSettings } from '../settings.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Abortable } from './abortable.ts'

/** What a handler is told about the delivery at hand: its second argument. */
export interface DeliveryContext {
  /**
   * Aborts when the handler outran its timeout (POSTHORN_HANDLER_TIMEOUT), when the lease was lost
   * (POSTHORN_LEASE_LOST), or when the connection closes and the time for draining is over (POSTHORN_CLOSED). What
   * the handler does afterwards has no effect on the message, except that it may still finish while closing.
   */
  readonly signal: AbortSignal
  /** 1 for the first delivery, and one more after each failure. */
  readonly attempt: number
  /** How many times a process was lost while it held this message. These do not count as attempts. */
  readonly crashes: number
  readonly topic: string
  readonly subscription: string
  readonly partition: number
  readonly offset: number
  /** The failures of earlier attempts, oldest first. */
  readonly failures: readonly Failure[]
  /** When the handler must be done, in milliseconds since the epoch. */
  readonly deadline: number
}

/** One message on its way through a handler. */
export class Delivery extends Abortable implements DeliveryContext {
  readonly ledger: GrantLedger
  /** Of the message within its grant. */
  readonly index: number
  readonly deadline: number
  readonly #settings: ConsumerSettings

  constructor(ledger: GrantLedger, index: number, settings: ConsumerSettings, deadline: number) {
    super()
    this.ledger = ledger
    this.index = index
    this.deadline = deadline
    this.#settings = settings
  }

  holds(ledger: GrantLedger): boolean {
    return this.ledger === ledger
  }

  get attempt(): number {
    return this.ledger.grant.attempt
  }

  get crashes(): number {
    return this.ledger.grant.crashes
  }

  get topic(): string {
    return this.#settings.topic
  }

  get subscription(): string {
    return this.#settings.subscription
  }

  get partition(): number {
    return this.ledger.grant.partition
  }

  get offset(): number {
    return this.ledger.message(this.index).offset
  }

  get failures(): readonly Failure[] {
    return this.ledger.grant.failures
  }
}
