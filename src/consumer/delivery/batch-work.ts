/**
 * Hands messages to a handler in batches. A batch is due when it is full, in messages or in what may be held in bytes,
 * or when its first message has waited for `waitMs` since it was granted; where there are limits, when the supply says.
 * One timer, set for the oldest message, brings the runner back when a wait is over.
 * A suspect is a batch of its own.
 */
import type { StoredEvent } from '../../engine.ts'
import type { Timer } from '../../environment/index.ts'
import type { Item } from '../fetching/supply.ts'
import type { BatchHandler, CheckEvent } from '../settings.ts'
import { isInstance } from '../settlement/failure.ts'
import { InvalidEvent } from '../settlement/verdict.ts'
import { BatchDelivery } from './batch-delivery.ts'
import type { Work } from './runner.ts'
import { checkedEvent } from './single-work.ts'
import { throwIfGivenUp, type WorkTools } from './work-tools.ts'

export class BatchWork implements Work<BatchDelivery> {
  readonly #tools: WorkTools
  readonly #handler: BatchHandler
  readonly #size: number
  readonly #waitMs: number
  #timer: Timer | undefined = undefined

  constructor(tools: WorkTools, handler: BatchHandler, batch: { size: number; waitMs: number }) {
    this.#tools = tools
    this.#handler = handler
    this.#size = batch.size
    this.#waitMs = batch.waitMs
  }

  next(nowMs: number, running: number): BatchDelivery | undefined {
    const { supply } = this.#tools
    if (supply.held)
      return this.#batch(
        this.#items(nowMs, 1, () => supply.takeSuspect(running)),
        nowMs,
      )
    while (this.#due()) {
      const batch = this.#batch(
        this.#items(nowMs, this.#size, () => supply.take()),
        nowMs,
      )
      if (batch !== undefined) return batch
    }
    return undefined
  }

  invoke(batch: BatchDelivery): unknown {
    const { handleBatch, checkEvent } = this.#handler
    if (checkEvent !== undefined) return this.#checkAndHandle(checkEvent, batch)
    return handleBatch(present(batch.events), batch)
  }

  succeeded(batch: BatchDelivery, nowMs: number): void {
    const { finisher } = this.#tools
    for (const [position, { ledger, index }] of batch.items.entries()) {
      if (batch.failed.has(position)) finisher.fail(ledger, index, batch.failed.get(position), nowMs)
      else finisher.ack(ledger, index)
    }
  }

  failed(batch: BatchDelivery, thrown: unknown, nowMs: number): void {
    const { finisher } = this.#tools
    for (const [position, { ledger, index }] of batch.items.entries()) {
      if (batch.failed.has(position)) finisher.fail(ledger, index, batch.failed.get(position), nowMs)
      else if (batch.aborted) finisher.release(ledger, index)
      else finisher.fail(ledger, index, thrown, nowMs)
    }
  }

  timedOut(batch: BatchDelivery, nowMs: number): void {
    const error = this.#tools.overrun.report(placeOf(batch))
    this.failed(batch, error, nowMs)
    batch.abort(error)
  }

  endedLate(batch: BatchDelivery, durationMs: number): void {
    this.#tools.overrun.reportEnd(placeOf(batch), durationMs)
  }

  started(): void {
    this.#tools.onStarted()
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #due(): boolean {
    const { supply, environment } = this.#tools
    supply.prepare()
    const oldestMs = supply.oldestArrivedAtMs
    if (oldestMs === undefined) return false
    if (supply.count >= this.#size) return true
    const fullMs = supply.full ? Number.NEGATIVE_INFINITY : oldestMs + this.#waitMs
    const leftMs = (supply.startByMs ?? fullMs) - environment.clock.elapsedMs()
    if (leftMs > 0 && this.#timer === undefined) this.#wakeIn(leftMs)
    return leftMs <= 0
  }

  #wakeIn(delayMs: number): void {
    this.#timer = this.#tools.environment.clock.setTimer(delayMs, () => {
      this.#timer = undefined
      this.#tools.onStartable()
    })
  }

  #items(nowMs: number, countMax: number, take: () => Item | undefined): Item[] {
    const items: Item[] = []
    while (items.length < countMax) {
      const item = take()
      if (item === undefined) break
      if (!this.#tools.finisher.expire(item.ledger, item.index, nowMs)) items.push(item)
    }
    return items
  }

  #batch(items: readonly Item[], nowMs: number): BatchDelivery | undefined {
    if (items.length === 0) return undefined
    return new BatchDelivery(items, this.#tools.settings, nowMs + this.#tools.settings.timeoutMs)
  }

  async #checkAndHandle(checkEvent: CheckEvent, batch: BatchDelivery): Promise<void> {
    const checked = await Promise.allSettled(batch.events.map(async (event) => checkedEvent(checkEvent, event!)))
    // The timeout covers the check: what was told to stop in the meantime is not started any more.
    throwIfGivenUp(batch, this.#tools)
    for (const [position, result] of checked.entries()) {
      if (result.status === 'rejected') batch.failed.set(position, invalid(result.reason))
    }
    batch.replaceEvents(checked.map((result) => (result.status === 'fulfilled' ? result.value : undefined)))
    const events = present(batch.events)
    if (events.length > 0) await this.#handler.handleBatch(events, batch)
  }
}

function invalid(reason: unknown): InvalidEvent {
  return isInstance(reason, InvalidEvent) ? reason : new InvalidEvent(reason)
}

function present(events: readonly (StoredEvent | undefined)[]): StoredEvent[] {
  return events.filter((event) => event !== undefined)
}

function placeOf(batch: BatchDelivery) {
  const { ledger, index } = batch.items[0]!
  return { messages: batch.items.length, partition: ledger.grant.partition, offset: ledger.message(index).offset }
}
