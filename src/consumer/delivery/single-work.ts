import type { StoredEvent } from '../../engine.ts'
import type { GrantBuffer } from '../fetching/buffer.ts'
import type { CheckEvent, ConsumerSettings, Handle, SingleHandler } from '../settings.ts'
import type { Finisher } from '../settlement/finisher.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { InvalidEvent } from '../settlement/verdict.ts'
import { Delivery } from './delivery.ts'
import type { Work } from './runner.ts'
import type { WorkTools } from './work-tools.ts'

/** Hands messages to a handler one by one. */
export class SingleWork implements Work<Delivery> {
  readonly #tools: WorkTools
  // Read for every delivery.
  readonly #settings: ConsumerSettings
  readonly #buffer: GrantBuffer
  readonly #finisher: Finisher
  readonly #handle: Handle
  readonly #checkEvent: CheckEvent | undefined

  constructor(tools: WorkTools, handler: SingleHandler) {
    this.#tools = tools
    this.#settings = tools.settings
    this.#buffer = tools.buffer
    this.#finisher = tools.finisher
    this.#handle = handler.handle
    this.#checkEvent = handler.checkEvent
  }

  next(nowMs: number, running: number): Delivery | undefined {
    for (;;) {
      const ledger = this.#buffer.held ? this.#buffer.takeSuspect(running) : this.#buffer.take()
      if (ledger === undefined) return undefined
      const index = ledger.next - 1
      if (!this.#finisher.expire(ledger, index, nowMs)) return this.#delivery(ledger, index, nowMs)
    }
  }

  invoke(delivery: Delivery): unknown {
    const { event } = delivery.ledger.message(delivery.index)
    if (this.#checkEvent === undefined) return this.#handle(event, delivery)
    return this.#checkAndHandle(this.#checkEvent, event, delivery)
  }

  succeeded(delivery: Delivery): void {
    this.#finisher.ack(delivery.ledger, delivery.index)
  }

  failed(delivery: Delivery, thrown: unknown, nowMs: number): void {
    const { ledger, index } = delivery
    // It threw because it was told to stop: that is not held against the message.
    if (delivery.aborted) this.#finisher.release(ledger, index)
    else this.#finisher.fail(ledger, index, thrown, nowMs)
  }

  timedOut(delivery: Delivery, nowMs: number): void {
    const error = this.#tools.overrun.report(placeOf(delivery))
    this.failed(delivery, error, nowMs)
    delivery.abort(error)
  }

  endedLate(delivery: Delivery, durationMs: number): void {
    this.#tools.overrun.reportEnd(placeOf(delivery), durationMs)
  }

  started(): void {
    this.#tools.onStarted()
  }

  #delivery(ledger: GrantLedger, index: number, nowMs: number): Delivery {
    return new Delivery(ledger, index, this.#settings, nowMs + this.#settings.timeoutMs)
  }

  #checkAndHandle(checkEvent: CheckEvent, event: StoredEvent, delivery: Delivery): unknown {
    const checked = checkedEvent(checkEvent, event)
    if (!(checked instanceof Promise)) return this.#handle(checked, delivery)
    return checked.then((ready) => this.#handleChecked(ready, delivery), rejectInvalid)
  }

  // The timeout covers the check: what was told to stop in the meantime is not started any more.
  #handleChecked(event: StoredEvent, delivery: Delivery): unknown {
    delivery.signal.throwIfAborted()
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
