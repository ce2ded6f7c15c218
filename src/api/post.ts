/**
 * One connection, and everything that a program does with it.
 *
 * States: *open*; *closing* once `close` was called, when nothing new is taken except what running handlers publish,
 * because their work would otherwise fail at its last step; *closed* when subscriptions have drained, all that was
 * published is stored, and the engine is closed. A failure on the way is reported by `close` after the rest was done.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { type Consumer, startConsumer } from '../consumer/consumer.ts'
import { EventLoopWatch } from '../consumer/event-loop-watch.ts'
import type { Handle, HandleBatch, Handlers } from '../consumer/settings.ts'
import type { Engine } from '../engine.ts'
import type { Environment } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import { describe } from '../message/duration.ts'
import { checkName } from '../message/names.ts'
import { invalidOption } from '../message/options.ts'
import type { BulkResult } from '../publisher/bulk.ts'
import { KnownTopics } from '../publisher/known-topics.ts'
import type { BulkOptions, PublishOptions } from '../publisher/publish-options.ts'
import { type Published, Publisher, type PublisherSettings } from '../publisher/publisher.ts'
import { Admin } from './admin.ts'
import type { BatchHandler, Handler } from './event.ts'
import { eventCheck } from './event-check.ts'
import { OpenSubscriptions } from './open-subscriptions.ts'
import { closeOnSignals } from './signals.ts'
import {
  type BatchSubscribeOptions,
  readSubscribeOptions,
  type SubscribeOptions,
  type SubscriptionSettings,
} from './subscribe-options.ts'
import { Subscription } from './subscription.ts'
import { checkDefinition, type Definition, type QueueDefinition, type TopicDefinition } from './topic.ts'

/** What `connect` made of its options. */
export interface PostSettings extends PublisherSettings {
  readonly drainMs: number
  readonly signals: readonly NodeJS.Signals[]
}

export class Post implements AsyncDisposable {
  /** What operators see and do. */
  readonly admin: Admin
  readonly #engine: Engine
  readonly #environment: Environment
  readonly #settings: PostSettings
  readonly #topics: KnownTopics
  readonly #publisher: Publisher
  readonly #subscriptions = new OpenSubscriptions()
  readonly #eventLoopWatch: EventLoopWatch
  /** Set in whatever a handler of this connection calls. */
  readonly #withinHandler = new AsyncLocalStorage<true>()
  readonly #ignoreSignals: () => void
  #closing: Promise<void> | undefined

  /** Made by `connect`. */
  constructor(engine: Engine, environment: Environment, settings: PostSettings) {
    this.#engine = engine
    this.#environment = environment
    this.#settings = settings
    this.#topics = new KnownTopics(engine)
    this.#publisher = new Publisher(engine, environment, this.#topics, settings)
    this.#eventLoopWatch = new EventLoopWatch(environment)
    this.#ignoreSignals = closeOnSignals(settings.signals, () => this.close(), environment.logger)
    this.admin = new Admin(
      () => this.#openEngine('an admin call'),
      () => this.#publisher.forgetTopics(),
    )
  }

  /**
   * Publishes one message. Resolves once it is on stable storage, or with `tx` once it is part of your transaction;
   * with `duplicate: true` when its id is known already, and nothing new was stored.
   *
   * Rejects with POSTHORN_INVALID_MESSAGE, POSTHORN_UNSERIALIZABLE_MESSAGE, POSTHORN_MESSAGE_TOO_LARGE or
   * POSTHORN_INVALID_OPTION before anything was stored; with POSTHORN_PUBLISH_BUFFER_FULL, POSTHORN_BACKLOG_FULL or a
   * POSTHORN_STORAGE_ error when it could not be stored (`retryable` says whether to try again); and with
   * POSTHORN_CLOSED after `close`.
   */
  publish<Input, Output>(
    definition: Definition<Input, Output>,
    payload: NoInfer<Input>,
    options?: PublishOptions,
  ): Promise<Published> {
    if (this.#refuses()) return Promise.reject(closed('publish()'))
    try {
      checkDefinition(definition)
    } catch (error) {
      return Promise.reject(error)
    }
    return this.#publisher.publish(definition, payload, options)
  }

  /**
   * Publishes everything that `payloads` gives, in order, as fast as storage takes it: an array, a generator, an async
   * generator, a readable stream of objects. It is asked for more only as there is room, so it may be endless.
   * `options` hold for every message, or are a function that gives them for each payload:
   *
   *     await post.publishAll(userSignedUp, users, (user) => ({ id: `signup-${user.id}` }))
   *
   * Resolves with counts once everything is on stable storage. At the first failure it takes no more and rejects with
   * POSTHORN_BULK_INTERRUPTED, whose `details.published` says how many were stored, and whose `cause` is the failure.
   */
  async publishAll<Input, Output>(
    definition: Definition<Input, Output>,
    payloads: Iterable<NoInfer<Input>> | AsyncIterable<NoInfer<Input>>,
    options?: BulkOptions | ((payload: NoInfer<Input>, index: number) => Omit<PublishOptions, 'tx'> | undefined),
  ): Promise<BulkResult> {
    if (this.#refuses()) throw closed('publishAll()')
    checkDefinition(definition)
    checkSequence(payloads)
    return await this.#publisher.publishAll(definition, payloads, options)
  }

  /**
   * Makes topics exist now rather than when they are first used. Await it at start for topics that are published
   * within your own transactions: making a topic writes to the database that such a transaction has locked.
   */
  async ensureTopics(...definitions: readonly Definition<unknown, unknown>[]): Promise<void> {
    if (this.#refuses()) throw closed('ensureTopics()')
    for (const definition of definitions) checkDefinition(definition)
    await Promise.all(definitions.map((definition) => this.#topics.ensure(definition)))
  }

  /**
   * Runs `handler` for every message of a topic, under a durable subscription named `name`. Processes that use the
   * same name share its messages; every other name gets all messages too. For a queue there is no name to give.
   *
   * Throws POSTHORN_INVALID_OPTION, POSTHORN_INVALID_NAME, POSTHORN_QUEUE_SUBSCRIPTION for a queue with another name
   * than its own, POSTHORN_SUBSCRIPTION_CONFLICT when it is open already with other settings, and POSTHORN_CLOSED.
   * What goes wrong later rejects `ready` and is logged.
   */
  subscribe<Input, Output>(
    definition: TopicDefinition<Input, Output>,
    name: string,
    handler: BatchHandler<NoInfer<Output>>,
    options: BatchSubscribeOptions,
  ): Subscription
  subscribe<Input, Output>(
    definition: TopicDefinition<Input, Output>,
    name: string,
    handler: Handler<NoInfer<Output>>,
    options?: SubscribeOptions,
  ): Subscription
  subscribe<Input, Output>(
    definition: QueueDefinition<Input, Output>,
    handler: BatchHandler<NoInfer<Output>>,
    options: BatchSubscribeOptions,
  ): Subscription
  subscribe<Input, Output>(
    definition: QueueDefinition<Input, Output>,
    handler: Handler<NoInfer<Output>>,
    options?: SubscribeOptions,
  ): Subscription
  subscribe(definition: Definition<unknown, unknown>, ...rest: readonly unknown[]): Subscription {
    if (this.#closing !== undefined) throw closed('subscribe()')
    checkDefinition(definition)
    const named = typeof rest[0] === 'string' || definition.kind === 'topic'
    const name = readName(definition, named ? rest[0] : definition.name)
    const [handler, options = {}] = named ? rest.slice(1) : rest
    checkHandler(handler)
    const settings = readSubscribeOptions(options as SubscribeOptions)
    this.#subscriptions.check(definition.name, name, settings)
    return this.#open(definition, name, handler, settings)
  }

  /**
   * Stops the subscriptions, waiting for running handlers for at most `drainTimeout`, stores what was published, and
   * closes the connection. Idempotent: every call returns the same promise.
   *
   * Do not await it within a handler: it waits for that very handler, until `drainTimeout` is over.
   */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #open(
    definition: Definition<unknown, unknown>,
    name: string,
    handler: (...parameters: never[]) => unknown,
    settings: SubscriptionSettings,
  ): Subscription {
    const opening = this.#withinHandler.run(true, () => this.#startConsumer(definition, name, handler, settings))
    const subscription = new Subscription(
      { topic: definition.name, name },
      opening,
      this.#environment.logger,
      (ended) => this.#subscriptions.delete(ended),
    )
    this.#subscriptions.add(subscription, settings)
    return subscription
  }

  // Runs within `#withinHandler`, which the consumer's whole chain of promises and timers inherits, handlers included.
  async #startConsumer(
    definition: Definition<unknown, unknown>,
    subscription: string,
    handler: (...parameters: never[]) => unknown,
    { concurrency, timeoutMs, retry, batch, start, maxCrashes }: SubscriptionSettings,
  ): Promise<Consumer> {
    const topic = definition.name
    const checkEvent = eventCheck(definition)
    const handlers: Handlers =
      batch === undefined
        ? { handle: handler as Handle, checkEvent }
        : { handleBatch: handler as HandleBatch, checkEvent }
    await this.#topics.ensure(definition)
    await this.#engine.ensureSubscription({ topic, subscription, maxCrashes, ...(start !== undefined && { start }) })
    const { drainMs } = this.#settings
    const settings = {
      topic,
      subscription,
      concurrency,
      timeoutMs,
      retry,
      drainMs,
      ...(batch !== undefined && { batch }),
    }
    const consumer = startConsumer(this.#engine, this.#environment, settings, handlers, this.#eventLoopWatch)
    await consumer.ready
    return consumer
  }

  #refuses(): boolean {
    return this.#closing !== undefined && this.#withinHandler.getStore() === undefined
  }

  #openEngine(operation: string): Engine {
    if (this.#refuses()) throw closed(operation)
    return this.#engine
  }

  async #shutDown(): Promise<void> {
    const steps = [
      () => this.#subscriptions.closeAll(),
      () => this.#publisher.close(),
      () => this.#engine.close(),
      () => this.#ignoreSignals(),
    ]
    const failures: unknown[] = []
    for (const step of steps) {
      try {
        await step()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }
}

function readName({ kind, name: topic }: Definition<unknown, unknown>, name: unknown): string {
  checkName('subscription', name)
  if (kind === 'queue' && name !== topic) {
    throw new PosthornError('POSTHORN_QUEUE_SUBSCRIPTION', { topic, subscription: name })
  }
  return name
}

function checkHandler(handler: unknown): asserts handler is (...parameters: never[]) => unknown {
  if (typeof handler === 'function') return
  throw invalidOption('handler', `it is ${describe(handler)}; expected a function`)
}

function checkSequence(payloads: unknown): void {
  const object = typeof payloads === 'object' && payloads !== null
  if (object && (Symbol.iterator in payloads || Symbol.asyncIterator in payloads)) return
  throw invalidOption('payloads', `it is ${describe(payloads)}; expected an iterable or async iterable of payloads`)
}

function closed(operation: string): PosthornError {
  return new PosthornError('POSTHORN_CLOSED', { operation })
}
