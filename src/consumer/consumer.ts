/**
 * One process's share of a subscription, from opening it to closing it.
 *
 * States: opening (`ready` is pending), open, closing, closed; or failed, when the engine could not open the source:
 * then `ready` has rejected with its error, nothing runs, and `close` has nothing to do. Closing while opening waits a
 * few seconds for the engine; a source that opens later still is closed at once. When the subscription is deleted, the
 * consumer says so and closes by itself: one of the same name that is made later starts elsewhere, so it is another one.
 */
import type { Engine, Source } from '../engine.ts'
import type { Environment } from '../environment/index.ts'
import type { PosthornError } from '../errors.ts'
import type { EventLoopWatch } from './event-loop-watch.ts'
import { Pipeline } from './pipeline.ts'
import type { ConsumerSettings, Handlers } from './settings.ts'
import { failureOf } from './settlement/failure.ts'
import { within } from './within.ts'

export type { BatchContext, EventDetails } from './delivery/batch-delivery.ts'
export type { DeliveryContext } from './delivery/delivery.ts'
export { EventLoopWatch } from './event-loop-watch.ts'
export type { Backoff, RetryPolicy } from './retry-policy.ts'
export type { CheckEvent, ConfiguredLimit, ConsumerSettings, Handle, HandleBatch, Handlers } from './settings.ts'

const OPEN_WAIT_MS = 5_000

export interface Consumer {
  /** Resolves once messages are being fetched. Rejects, without ever being an unhandled rejection, when they cannot. */
  readonly ready: Promise<void>
  /** Resolves once it is closed, by `close` or because the subscription was deleted. */
  readonly ended: Promise<void>
  /** Hands back what did not start, lets handlers finish, settles. Never hangs, never rejects. Idempotent. */
  close(): Promise<void>
}

export function startConsumer(
  engine: Engine,
  environment: Environment,
  settings: ConsumerSettings,
  handlers: Handlers,
  eventLoopWatch: EventLoopWatch,
): Consumer {
  return new SourceConsumer(engine, environment, settings, handlers, eventLoopWatch)
}

class SourceConsumer implements Consumer {
  readonly ready: Promise<void>
  readonly ended: Promise<void>
  readonly #environment: Environment
  readonly #settings: ConsumerSettings
  readonly #handlers: Handlers
  readonly #stopWatching: () => void
  readonly #onEnded: () => void
  #pipeline: Pipeline | undefined
  #closed: Promise<void> | undefined

  constructor(
    engine: Engine,
    environment: Environment,
    settings: ConsumerSettings,
    handlers: Handlers,
    eventLoopWatch: EventLoopWatch,
  ) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    this.#onEnded = resolve
    this.#environment = environment
    this.#settings = settings
    this.#handlers = handlers
    this.#stopWatching = eventLoopWatch.register({
      name: settings.subscription,
      ranSince: (timeMs) => this.#pipeline?.ranSince(timeMs) ?? false,
    })
    this.ready = this.#open(engine)
    this.ready.catch(() => this.#stopWatching())
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #open(engine: Engine): Promise<void> {
    const { topic, subscription, timeoutMs, limits } = this.#settings
    const source = await engine.openSource({
      topic,
      subscription,
      handlerTimeoutMs: timeoutMs,
      limits: limits.map(({ by, ...limit }) => limit),
      onCancelled: (lease, offset) => this.#pipeline?.cancelled(lease, offset),
      onLeasesLost: (leases, reason) => this.#pipeline?.leasesLost(leases, reason),
      onSurplus: (partitions) => this.#pipeline?.release(partitions),
      onDamage: (error) => this.#report('Messages could not be read.', error),
    })
    if (this.#closed !== undefined) await this.#closeUnused(source)
    else this.#run(source)
  }

  #run(source: Source): void {
    this.#pipeline = new Pipeline(source, this.#settings, this.#environment, this.#handlers, (error) =>
      this.#end(error),
    )
    this.#pipeline.start()
  }

  #end(error: PosthornError): void {
    this.#report('A subscription was deleted while it was open here; it is closed and gets no more messages.', error)
    void this.close()
  }

  async #close(): Promise<void> {
    try {
      if (this.#pipeline === undefined) await this.#opening()
      else await this.#pipeline.close()
    } catch (error) {
      this.#report('Closing a subscription failed; what it held is delivered again once its session runs out.', error)
    } finally {
      this.#stopWatching()
      this.#onEnded()
    }
  }

  async #opening(): Promise<void> {
    const settled = this.ready.catch(() => undefined)
    await within(this.#environment.clock, OPEN_WAIT_MS, settled)
  }

  async #closeUnused(source: Source): Promise<void> {
    try {
      await source.close()
    } catch (error) {
      this.#report('Closing a subscription failed.', error)
    }
  }

  #report(happened: string, error: unknown): void {
    const { topic, subscription } = this.#settings
    const { code, message } = failureOf(error, 0, 0)
    const fields = { topic, subscription, error: message, ...(code === undefined ? {} : { code }) }
    this.#environment.logger.error(happened, fields)
  }
}
