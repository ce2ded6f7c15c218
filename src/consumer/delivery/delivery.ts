import type { Failure, LeaseId } from '../../engine.ts'
import type { Serialized } from '../../message/serialized.ts'
import type { Item } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Abortable } from './abortable.ts'
import { idempotencyKeyOf } from './idempotency-key.ts'
import type { StepContext, StepOptions } from './step-options.ts'
import { Steps, type StepTools } from './steps.ts'

/** What a handler is told about the delivery at hand: its second argument. */
export interface DeliveryContext {
  /**
   * Aborts when the handler outran its timeout (POSTHORN_HANDLER_TIMEOUT), when the lease was lost
   * (POSTHORN_LEASE_LOST), when the message was cancelled (POSTHORN_CANCELLED), or when the connection closes and the time for draining is over (POSTHORN_CLOSED). What
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
  /**
   * Names this message for this subscription: the same in every attempt and process, after a replay or a redrive too,
   * and another one for every other message. At most 255 characters, fit for an HTTP header such as `Idempotency-Key`.
   */
  readonly idempotencyKey: string
  /**
   * Runs a part of the handler once: its result is stored, and when the message is delivered again, after a failure
   * further down or the death of the process, the step resolves with the stored result and `work` is not called.
   *
   *     const charge = await step('charge', ({ idempotencyKey }) => payments.charge(order, { idempotencyKey }))
   *     await step('receipt', () => mailer.send(receiptFor(charge)))
   *
   * Resolves once the result is on stable storage, with what JSON makes of it, the first time too; at most 1 MiB. When
   * `work` throws, so does the step, and nothing is stored (`Discard` and `RetryAfter` mean what they always mean). The
   * process may die between the effect and its storing, so that the next attempt runs `work` once more: the step's
   * `idempotencyKey` lets a service recognise that. Results are kept until the message is acknowledged; a dead letter
   * keeps them, so that a redrive goes on where it stopped.
   *
   * Steps may run side by side. When the handler fails while some still run, the failure is recorded once they are over,
   * or the handler's time is; it begins no others then (POSTHORN_LEASE_LOST). The result of one that ends later is kept
   * if it comes before the next attempt starts.
   *
   * Names have 1 to 200 characters. Rejects with POSTHORN_STEP_CONFLICT when the handler has begun a step of this name
   * already, POSTHORN_STEP_TIMEOUT, POSTHORN_INVALID_OPTION, POSTHORN_LEASE_LOST when the message is not this call's any
   * more, and POSTHORN_UNSERIALIZABLE_STEP when the result has no form in JSON: the effect has happened then, and later
   * attempts do not repeat it but fail with the same, until the dead letter is redriven.
   */
  step<Result>(
    this: void,
    name: string,
    work: (context: StepContext) => Result,
    options?: StepOptions,
  ): Promise<Serialized<Awaited<Result>>>
}

/** Of the step of a delivery, without the types that only its callers know. */
type UntypedStep = (name: string, work: (context: StepContext) => unknown, options?: StepOptions) => Promise<never>

/** One message on its way through a handler. */
export class Delivery extends Abortable implements DeliveryContext {
  readonly ledger: GrantLedger
  /** Of the message within its grant. */
  readonly index: number
  deadline: number
  /** What the handler threw. It begins no steps any more. */
  failure: { readonly thrown: unknown } | undefined = undefined
  readonly #tools: StepTools
  #steps: Steps | undefined = undefined

  constructor(ledger: GrantLedger, index: number, tools: StepTools, deadline: number) {
    super()
    this.ledger = ledger
    this.index = index
    this.deadline = deadline
    this.#tools = tools
  }

  holds(ledger: GrantLedger): boolean {
    return this.ledger === ledger
  }

  includes({ ledger, index }: Item): boolean {
    return this.ledger === ledger && this.index === index
  }

  get attempt(): number {
    return this.ledger.grant.attempt
  }

  get crashes(): number {
    return this.ledger.grant.crashes
  }

  get topic(): string {
    return this.#tools.settings.topic
  }

  get subscription(): string {
    return this.#tools.settings.subscription
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

  get lease(): LeaseId {
    return this.ledger.grant.lease
  }

  get idempotencyKey(): string {
    return idempotencyKeyOf(...this.#identity())
  }

  idempotencyKeyFor(step: string): string {
    return idempotencyKeyOf(...this.#identity(), step)
  }

  /** A function of its own, so that handlers can take it out of their context. */
  get step(): UntypedStep {
    this.#steps ??= new Steps(this, this.#tools)
    const steps = this.#steps
    return (name, work, options) => steps.run(name, work, options) as Promise<never>
  }

  /** The store may have results of its steps. */
  get hasSteps(): boolean {
    return this.#steps?.kept === true
  }

  /**
   * Resolves once the steps under way are over, or nobody takes their results any more because the message was lost or
   * cancelled. Undefined: that is so already.
   */
  unfinishedSteps(): Promise<void> | undefined {
    const unfinished = this.#isPending() ? this.#steps?.unfinished() : undefined
    return unfinished && Promise.race([unfinished, this.#noLongerPending()])
  }

  #isPending(): boolean {
    return !this.ledger.lost && this.ledger.isOpen(this.index)
  }

  // A signal that aborts because the consumer closes leaves the steps the rest of the time for that.
  #noLongerPending(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const look = () => {
      if (!this.#isPending()) resolve()
    }
    this.signal.addEventListener('abort', look, { once: true })
    return promise
  }

  // Ids are chosen for one topic, and sources tell apart who chose them.
  #identity(): readonly string[] {
    const { source, id } = this.ledger.message(this.index).event
    return [this.topic, this.subscription, source, id]
  }
}
