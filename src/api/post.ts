/**
 * One connection, and everything that a program does with it.
 *
 * States: *open*; *closing* once `close` was called, when nothing new is taken except what running handlers publish,
 * because their work would otherwise fail at its last step; *closed* when subscriptions have drained, all that was
 * published is stored, and the engine is closed. A failure on the way is reported by `close` after the rest was done.
 */
import type { DatabaseSync } from 'node:sqlite'
import { EventLoopWatch } from '../consumer/event-loop-watch.ts'
import type { Engine } from '../engine.ts'
import type { Environment, Logger } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import { describe } from '../message/duration.ts'
import { checkName } from '../message/names.ts'
import { invalidOption } from '../message/options.ts'
import type { Serialized } from '../message/serialized.ts'
import type { Publication } from '../publisher/atomic.ts'
import type { BulkEach, BulkResult } from '../publisher/bulk.ts'
import { KnownTopics } from '../publisher/known-topics.ts'
import type { BulkOptions, MessageOptions, PublishOptions } from '../publisher/publish-options.ts'
import type { Published } from '../publisher/published.ts'
import { Publisher, type PublisherSettings } from '../publisher/publisher.ts'
import { Admin } from './admin.ts'
import { type ConsumingParts, checkSupport, openConsumer, type Subscribing } from './consuming.ts'
import type { BatchHandler, Handler, TransactionalHandler } from './event.ts'
import { HandlerScope } from './handler-scope.ts'
import { OpenSubscriptions } from './open-subscriptions.ts'
import { type AtomicOptions, checkPublications, readAtomicOptions } from './publication.ts'
import { closeOnSignals } from './signals.ts'
import {
  type BatchSubscribeOptions,
  readSubscribeOptions,
  type SubscribeOptions,
  type TransactionalSubscribeOptions,
  type UncheckedSubscribeOptions,
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
  readonly #logger: Logger
  readonly #topics: KnownTopics
  readonly #publisher: Publisher
  readonly #subscriptions = new OpenSubscriptions()
  readonly #consuming: ConsumingParts
  readonly #scope = new HandlerScope()
  readonly #ignoreSignals: () => void
  #closing: Promise<void> | undefined

  /** Made by `connect`. */
  constructor(engine: Engine, environment: Environment, settings: PostSettings) {
    const { drainMs } = settings
    const eventLoopWatch = new EventLoopWatch(environment)
    this.#engine = engine
    this.#logger = environment.logger
    this.#topics = new KnownTopics(engine)
    this.#publisher = new Publisher(engine, environment, this.#topics, settings)
    this.#consuming = { engine, environment, topics: this.#topics, eventLoopWatch, scope: this.#scope, drainMs }
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
   * POSTHORN_STORAGE_ error when it could not be stored (`retryable` says whether to try again); with
   * POSTHORN_INVALID_TRANSACTION when `tx` is of no use, or was left out in a transactional handler; and with
   * POSTHORN_CLOSED after `close`.
   */
  publish<Input, Output>(
    definition: Definition<Input, Output>,
    payload: NoInfer<Input>,
    options?: PublishOptions,
  ): Promise<Published> {
    try {
      this.#checkPublishing('publish()', options?.tx)
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
  publishAll<Input, Output>(
    definition: Definition<Input, Output>,
    payloads: Iterable<NoInfer<Input>> | AsyncIterable<NoInfer<Input>>,
    options?: BulkOptions | ((payload: NoInfer<Input>, index: number) => MessageOptions | undefined),
  ): Promise<BulkResult>
  /**
   * Publishes a few messages together, into one topic or several: all of them are stored, or none. For events of one
   * happening that make no sense without each other, at most 10,000; use the other form for many, which are stored as
   * they come, and a failure leaves what came before it.
   *
   *     await post.publishAll([message(orderPaid, order), message(stockReserved, items)])
   *
   * Resolves, in order, with what became of each, once all are on stable storage, or with `tx` once they are part of
   * your transaction. Messages of one topic keep their order. Everything is checked before anything is stored. Rejects
   * as `publish` does, and with POSTHORN_BACKLOG_FULL when one of the topics is full, even if its publishers are to
   * wait; with `tx`, roll your transaction back then. Await other calls that are to come first.
   */
  publishAll(messages: readonly Publication[], options?: AtomicOptions): Promise<readonly Published[]>
  async publishAll(target: unknown, ...rest: readonly unknown[]): Promise<BulkResult | readonly Published[]> {
    // A definition is never an array, so this tells the two apart whatever else is wrong.
    if (Array.isArray(target)) return await this.#publishAtomically(target, rest[0])
    this.#checkPublishing('publishAll()', undefined)
    checkDefinition(target)
    const [payloads, each] = rest
    checkSequence(payloads)
    return await this.#publisher.publishAll(target, payloads, each as BulkEach)
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
   * than its own, POSTHORN_SUBSCRIPTION_CONFLICT when it is open already with other settings, POSTHORN_UNSUPPORTED for
   * transactional handlers on an engine that has none, and POSTHORN_CLOSED. What goes wrong later rejects `ready` and is logged.
   */
  subscribe<Input, Output>(
    definition: TopicDefinition<Input, Output>,
    name: string,
    handler: BatchHandler<NoInfer<Output>>,
    options: BatchSubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe<Input, Output, Transaction = DatabaseSync>(
    definition: TopicDefinition<Input, Output>,
    name: string,
    handler: TransactionalHandler<NoInfer<Output>, Transaction>,
    options: TransactionalSubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe<Input, Output>(
    definition: TopicDefinition<Input, Output>,
    name: string,
    handler: Handler<NoInfer<Output>>,
    options?: SubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe<Input, Output>(
    definition: QueueDefinition<Input, Output>,
    handler: BatchHandler<NoInfer<Output>>,
    options: BatchSubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe<Input, Output, Transaction = DatabaseSync>(
    definition: QueueDefinition<Input, Output>,
    handler: TransactionalHandler<NoInfer<Output>, Transaction>,
    options: TransactionalSubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe<Input, Output>(
    definition: QueueDefinition<Input, Output>,
    handler: Handler<NoInfer<Output>>,
    options?: SubscribeOptions<Serialized<NoInfer<Output>>>,
  ): Subscription
  subscribe(definition: Definition<unknown, unknown>, ...rest: readonly unknown[]): Subscription {
    if (this.#closing !== undefined) throw closed('subscribe()')
    checkDefinition(definition)
    const named = typeof rest[0] === 'string' || definition.kind === 'topic'
    const name = readName(definition, named ? rest[0] : definition.name)
    const [handler, options = {}] = named ? rest.slice(1) : rest
    checkHandler(handler)
    const settings = readSubscribeOptions(options as UncheckedSubscribeOptions)
    checkSupport(this.#engine, settings)
    this.#subscriptions.check(definition.name, name, settings)
    return this.#open({ definition, name, handler, settings })
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

  #open(subscribing: Subscribing): Subscription {
    const { definition, name, settings } = subscribing
    // The consumer's whole chain of promises and timers inherits the scope, handlers included.
    const closing = new AbortController()
    const opening = this.#scope.run(() => openConsumer(this.#consuming, subscribing, closing.signal))
    const address = { topic: definition.name, name }
    const endOpening = () => closing.abort()
    const subscription = new Subscription(address, opening, endOpening, this.#logger, (ended) =>
      this.#subscriptions.delete(ended),
    )
    this.#subscriptions.add(subscription, settings)
    return subscription
  }

  async #publishAtomically(messages: readonly unknown[], options: unknown): Promise<readonly Published[]> {
    const transaction = readAtomicOptions((options ?? {}) as AtomicOptions)
    this.#checkPublishing('publishAll()', transaction)
    checkPublications(messages)
    return await this.#publisher.publishAtomically(messages, transaction)
  }

  #checkPublishing(operation: string, transaction: unknown): void {
    if (this.#refuses()) throw closed(operation)
    if (transaction === undefined && this.#scope.inTransaction) throw besideTransaction(operation)
  }

  #refuses(): boolean {
    return this.#closing !== undefined && !this.#scope.inHandler
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

function checkSequence(payloads: unknown): asserts payloads is Iterable<unknown> | AsyncIterable<unknown> {
  const object = typeof payloads === 'object' && payloads !== null
  if (object && (Symbol.iterator in payloads || Symbol.asyncIterator in payloads)) return
  throw invalidOption('payloads', `it is ${describe(payloads)}; expected an iterable or async iterable of payloads`)
}

// It would wait for the lock that the handler's transaction holds, while the handler waits for it.
function besideTransaction(operation: string): PosthornError {
  const problem = `${operation} was called without it in a transactional handler; pass { tx: context.tx }`
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}

function closed(operation: string): PosthornError {
  return new PosthornError('POSTHORN_CLOSED', { operation })
}
