/**
 * Turns payloads into stored messages: validates, encodes, and hands them to the group-committing writer.
 *
 * `publish` decides as much as it can before it returns: with a schema that answers at once, a message has its place
 * in the order of its topic when the call returns, and a `tx` publish has reached the engine.
 * Whatever goes wrong rejects the returned promise; `publish` itself never throws.
 */
import type { AppendReceipt, Engine, NewMessage } from '../engine.ts'
import type { Environment } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'
import { checkText } from '../message/attributes.ts'
import { encodeMessage, encodeShared, exceedsBytes, Timestamps } from '../message/encode.ts'
import { IdentifierSource } from '../message/identifier.ts'
import { serialize } from '../message/serialize.ts'
import { type Validation, validate } from '../message/validate.ts'
import { type AtomicGroup, AtomicGroups, type Publication } from './atomic.ts'
import type { BulkEach, BulkResult } from './bulk.ts'
import { type BulkTarget, publishBulk } from './bulk.ts'
import type { KnownTopics } from './known-topics.ts'
import { Lane, type Waiter } from './lane.ts'
import {
  type Directions,
  noDirections,
  type PublishOptions,
  readMessageOptions,
  readPublishOptions,
} from './publish-options.ts'
import type { Publishable } from './publishable.ts'
import { type Published, publishedFrom } from './published.ts'
import { groupOf, receiptsOf, Writer } from './writer.ts'

export interface PublisherSettings {
  /** The CloudEvents `source` of every message. */
  readonly source: string
  readonly maxMessageBytes: number
  readonly maxBufferedBytes: number
}

export class Publisher {
  readonly #engine: Engine
  readonly #environment: Environment
  readonly #settings: PublisherSettings
  readonly #topics: KnownTopics
  readonly #writer: Writer
  readonly #identifiers: IdentifierSource
  readonly #timestamps = new Timestamps()
  // Weak, because a definition may be made anew for every call.
  #lanes = new WeakMap<Publishable, Lane>()
  /** Publishes whose schema is still thinking. */
  readonly #validating = new Set<Promise<unknown>>()

  constructor(engine: Engine, environment: Environment, topics: KnownTopics, settings: PublisherSettings) {
    this.#engine = engine
    this.#environment = environment
    this.#settings = settings
    this.#topics = topics
    this.#writer = new Writer(engine, environment.clock, topics, settings.maxBufferedBytes)
    this.#identifiers = new IdentifierSource(environment.random)
  }

  publish(definition: Publishable, payload: unknown, options: PublishOptions | undefined): Promise<Published> {
    try {
      if (definition.schema === undefined) return this.#store(definition, payload, options)
      const validation = validate(definition.schema, payload)
      if (!(validation instanceof Promise)) return this.#store(definition, accepted(definition, validation), options)
      return this.#storeOnceValid(definition, validation, options)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** Publishes many messages with bounded memory; see `Post.publishAll`. */
  publishAll(
    definition: Publishable,
    payloads: Iterable<unknown> | AsyncIterable<unknown>,
    each: BulkEach,
  ): Promise<BulkResult> {
    const lane = this.#laneOf(definition)
    const target: BulkTarget = {
      topic: definition.name,
      bufferedBytesMax: this.#settings.maxBufferedBytes / 2,
      writer: this.#writer,
      bufferedBytes: () => this.#writer.bytesBeside(lane),
      now: () => this.#environment.clock.now(),
      validate: (payload) => validateFor(definition, payload),
      add: (payload, directions, nowMs, waiter) =>
        this.#writer.admit(lane, this.#encode(lane, payload, directions, nowMs), waiter),
    }
    return publishBulk(target, payloads, each)
  }

  /**
   * Stores all messages or none; see `Post.publishAll`. Everything is validated before anything is stored, and as with
   * `publish`, with schemas that answer at once a `transaction` has been given all of them when the call returns.
   */
  async publishAtomically(publications: readonly Publication[], transaction: unknown): Promise<readonly Published[]> {
    if (publications.length === 0) return []
    const payloads = publications.map(validateOne)
    const validated = payloads.some(isPromise) ? await this.#whileValidating(Promise.all(payloads)) : payloads
    const nowMs = this.#environment.clock.now()
    const sorted = new AtomicGroups()
    for (const [index, { definition, options }] of publications.entries()) {
      const lane = this.#laneOf(definition)
      const directions = options === undefined ? noDirections : readMessageOptions(options, nowMs)
      sorted.add(lane, this.#encode(lane, validated[index], directions, nowMs))
    }
    const { groups } = sorted
    if (transaction === undefined) return sorted.published(await this.#writer.storeAtomically(groups))
    return sorted.published(await this.#storeAllIn(transaction, groups))
  }

  /** A topic was deleted: makes sure of every topic again before its next use. */
  forgetTopics(): void {
    this.#topics.forgetAll()
    this.#lanes = new WeakMap()
  }

  /** Stores what is validated or queued, except what a full backlog holds back, which is rejected. */
  async close(): Promise<void> {
    while (this.#validating.size > 0) await Promise.allSettled(this.#validating)
    await this.#writer.close()
  }

  #storeOnceValid(
    definition: Publishable,
    validation: Promise<Validation>,
    options: PublishOptions | undefined,
  ): Promise<Published> {
    return this.#whileValidating(validation).then((result) =>
      this.#store(definition, accepted(definition, result), options),
    )
  }

  /** Keeps `close` waiting for `validation`, and for what its first reaction stores. */
  #whileValidating<Result>(validation: Promise<Result>): Promise<Result> {
    const settled = () => this.#validating.delete(validation)
    this.#validating.add(validation)
    validation.then(settled, settled)
    return validation
  }

  #store(definition: Publishable, payload: unknown, options: PublishOptions | undefined): Promise<Published> {
    const lane = this.#laneOf(definition)
    const nowMs = this.#environment.clock.now()
    const directions = options === undefined ? noDirections : readPublishOptions(options, nowMs)
    const message = this.#encode(lane, payload, directions, nowMs)
    if (options?.tx !== undefined) return this.#storeIn(options.tx, lane, message)
    return new Promise((resolve, reject) => {
      this.#writer.add(lane, message, new SingleWaiter(resolve, reject))
    })
  }

  async #storeIn(transaction: unknown, lane: Lane, message: NewMessage): Promise<Published> {
    const [receipts] = await this.#storeAllIn(transaction, [{ lane, messages: [message] }])
    return publishedFrom(message.id, receipts![0]!)
  }

  async #storeAllIn(
    transaction: unknown,
    groups: readonly AtomicGroup[],
  ): Promise<readonly (readonly AppendReceipt[])[]> {
    if (!this.#engine.capabilities.transactionalAppend) {
      const details = { engine: this.#engine.name, feature: "publish within the user's own transaction (tx)" }
      throw new PosthornError('POSTHORN_UNSUPPORTED', details)
    }
    for (const { lane } of groups) {
      if (!this.#topics.has(lane.definition.name)) throw unknownTopic(lane.definition.name)
    }
    return await Promise.all(
      groups.map(async (group) => receiptsOf(await this.#engine.appendIn(transaction, groupOf(group)))),
    )
  }

  #laneOf(definition: Publishable): Lane {
    let lane = this.#lanes.get(definition)
    if (lane === undefined) {
      const shared = encodeShared(this.#settings.source, definition.name, definition.dataschema)
      lane = new Lane(definition, shared, definition.maxMessageBytes ?? this.#settings.maxMessageBytes)
      this.#lanes.set(definition, lane)
    }
    return lane
  }

  #encode(lane: Lane, payload: unknown, directions: Directions, nowMs: number): NewMessage {
    const { definition, maxMessageBytes } = lane
    const { extensions, deliverAtMs, priority } = directions
    const data = serialize(definition.name, payload)
    const key = directions.key ?? keyOf(definition, payload)
    if (key !== undefined) checkText('key', key)
    const id = directions.id ?? this.#identifiers.next(nowMs)
    const parts = { id, timeMs: nowMs, time: this.#timestamps.of(nowMs), key, extensions, data }
    const message = encodeMessage(parts, directions.id !== undefined)
    if (exceedsBytes(message.json, maxMessageBytes)) throw tooLarge(lane, message)
    if (directions === noDirections) return message
    return {
      ...message,
      ...(directions.id !== undefined && { deduplicate: true as const }),
      ...(deliverAtMs !== undefined && { deliverAtMs }),
      ...(priority !== undefined && { priority }),
    }
  }
}

class SingleWaiter implements Waiter {
  readonly #resolve: (published: Published) => void
  readonly failed: (error: unknown) => void

  constructor(resolve: (published: Published) => void, reject: (error: unknown) => void) {
    this.#resolve = resolve
    this.failed = reject
  }

  stored(id: string, receipt: AppendReceipt): void {
    this.#resolve(publishedFrom(id, receipt))
  }
}

function validateFor(definition: Publishable, payload: unknown): unknown {
  if (definition.schema === undefined) return payload
  const validation = validate(definition.schema, payload)
  if (!(validation instanceof Promise)) return accepted(definition, validation)
  return validation.then((settled) => accepted(definition, settled))
}

// Never throws, so that what other schemas are still thinking about is awaited all the same.
function validateOne({ definition, payload }: Publication): unknown {
  try {
    return validateFor(definition, payload)
  } catch (error) {
    return Promise.reject(error)
  }
}

function isPromise(value: unknown): boolean {
  return value instanceof Promise
}

/** The schema's output, which is what is stored. Throws POSTHORN_INVALID_MESSAGE. */
function accepted(definition: Publishable, validation: Validation): unknown {
  if ('output' in validation) return validation.output
  const { problem, cause } = validation
  throw new PosthornError('POSTHORN_INVALID_MESSAGE', { topic: definition.name, problem }, { cause })
}

/** Throws POSTHORN_INVALID_MESSAGE when the definition's `key` function throws. */
function keyOf(definition: Publishable, payload: unknown): string | undefined {
  try {
    return definition.key(payload)
  } catch (cause) {
    const problem = `its key function threw ${cause instanceof Error ? cause.message : String(cause)}`
    throw new PosthornError('POSTHORN_INVALID_MESSAGE', { topic: definition.name, problem }, { cause })
  }
}

// Making the topic now would wait for the lock that the user's transaction holds, while that waits for us.
function unknownTopic(topic: string): PosthornError {
  const problem = `topic ${topic} was not used on this connection before; await post.ensureTopics() at start`
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}

function tooLarge({ definition, maxMessageBytes }: Lane, message: NewMessage): PosthornError {
  const size = Buffer.byteLength(message.json)
  return new PosthornError('POSTHORN_MESSAGE_TOO_LARGE', { topic: definition.name, size, limit: maxMessageBytes })
}
