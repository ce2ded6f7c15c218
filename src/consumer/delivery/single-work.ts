import type { StoredEvent } from '../../engine.ts'
import type { Item, Supply } from '../fetching/supply.ts'
import type { CheckEvent, Handle, SingleHandler } from '../settings.ts'
import type { Finisher } from '../settlement/finisher.ts'
import { InvalidEvent } from '../settlement/verdict.ts'
import { Delivery } from './delivery.ts'
import type { Work } from './runner.ts'
import { throwIfGivenUp, type WorkTools } from './work-tools.ts'

/** Hands messages to a handler one by one. */
export class SingleWork implements Work<Delivery> {
  readonly #tools: WorkTools
  // Read for every delivery.
  readonly #timeoutMs: number
  readonly #supply: Supply
  readonly #finisher: Finisher
  readonly #handle: Handle
  readonly #checkEvent: CheckEvent | undefined

  constructor(tools: WorkTools, handler: SingleHandler) {
    this.#tools = tools
    this.#timeoutMs = tools.settings.timeoutMs
    this.#supply = tools.supply
    this.#finisher = tools.finisher
    this.#handle = handler.handle
    this.#checkEvent = handler.checkEvent
  }

  next(nowMs: number, running: number): Delivery | undefined {
    for (;;) {
      const item = this.#supply.held ? this.#supply.takeSuspect(running) : this.#supply.take()
      if (item === undefined) return undefined
      if (this.#finisher.expire(item.ledger, item.index, nowMs)) continue
      return this.delivery(item, nowMs + this.#timeoutMs)
    }
  }

  invoke(delivery: Delivery): unknown {
    const { event } = delivery.ledger.message(delivery.index)
    if (this.#checkEvent === undefined) return this.#handle(event, delivery)
    return this.#checkAndHandle(this.#checkEvent, event, delivery)
  }

  succeeded(delivery: Delivery): void {
    const { ledger, index } = delivery
    if (delivery.hasSteps) ledger.forgetSteps(index)
    this.#finisher.ack(ledger, index)
  }

  failed(delivery: Delivery, thrown: unknown, nowMs: number): void {
    const { ledger, index } = delivery
    // It threw because it was told to stop: that is not held against the message.
    if (delivery.aborted) this.#finisher.release(ledger, index)
    else this.#finisher.fail(ledger, index, thrown, nowMs)
  }

  leftBehind(delivery: Delivery, thrown: unknown): Promise<void> | undefined {
    delivery.failure = { thrown }
    return delivery.unfinishedSteps()
  }

  timedOut(delivery: Delivery, nowMs: number): void {
    const error = this.#tools.overrun.report(placeOf(delivery))
    // Of a handler that has failed, only steps outran the timeout: its failure says more.
    this.failed(delivery, delivery.failure === undefined ? error : delivery.failure.thrown, nowMs)
    delivery.abort(error)
  }

  endedLate(delivery: Delivery, durationMs: number): void {
    this.#tools.overrun.reportEnd(placeOf(delivery), durationMs)
  }

  started(): void {
    this.#tools.onStarted()
  }

  protected delivery({ ledger, index }: Item, deadline: number): Delivery {
    return new Delivery(ledger, index, this.#tools, deadline)
  }

  #checkAndHandle(checkEvent: CheckEvent, event: StoredEvent, delivery: Delivery): unknown {
    const checked = checkedEvent(checkEvent, event)
    if (!(checked instanceof Promise)) return this.#handle(checked, delivery)
    return checked.then((ready) => this.#handleChecked(ready, delivery), rejectInvalid)
  }

  // The timeout covers the check: what was told to stop in the meantime is not started any more.
  #handleChecked(event: StoredEvent, delivery: Delivery): unknown {
    throwIfGivenUp(delivery, this.#tools)
    return this.#handle(event, delivery)
  }
}

/** Calls the check; what it throws comes out as an InvalidEvent. */
export function checkedEvent(checkEvent: CheckEvent, event: StoredEvent): StoredEvent | Promise<StoredEvent> {
  try {
    return checkEvent(event)
  } catch (error) {
    throw new InvalidEvent(error)
  }
}

function rejectInvalid(error: unknown): never {
  throw new InvalidEvent(error)
}

function placeOf({ partition, offset, attempt }: Delivery) {
  return { partition, offset, attempt }
}
