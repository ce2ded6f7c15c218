import type {
  CancelOutcome,
  ConsumerState,
  DeadLetter,
  Engine,
  PeekedMessage,
  RedriveOptions,
  SubscriptionRef,
  SubscriptionState,
  TopicState,
} from '../engine.ts'
import { checkText } from '../message/attributes.ts'
import { describe } from '../message/duration.ts'
import { checkName } from '../message/names.ts'
import { checkOptionNames, invalidOption, wholeNumber } from '../message/options.ts'
import { type From, readPosition } from './subscribe-options.ts'

/** A topic or queue, by its definition or its name. */
export type TopicReference = string | { readonly name: string }

export interface PeekRequest {
  /** Default 0. */
  readonly partition?: number
  /** Default: the oldest that is kept. */
  readonly fromOffset?: number
  /** Messages at most. Default 100, at most 10,000. */
  readonly limit?: number
}

export interface DeadLetterPage {
  /** Dead letters at most. Default 100, at most 10,000. */
  readonly limit?: number
  /** Only those after this one: the last `id` of the page before. */
  readonly afterId?: number
}

export interface RedriveRequest {
  /** Only these dead letters; otherwise all. */
  readonly ids?: readonly number[]
  /** Spread over time, so many a second; otherwise all at once. */
  readonly perSecond?: number
}

const PAGE_MAX = 10_000

const peekNames = new Set(['partition', 'fromOffset', 'limit'])
const pageNames = new Set(['limit', 'afterId'])
const redriveNames = new Set(['ids', 'perSecond'])

/**
 * What operators see and do. A queue's subscription has the name of the queue. Calls reject with
 * POSTHORN_TOPIC_NOT_FOUND or POSTHORN_SUBSCRIPTION_NOT_FOUND for what does not exist, and with POSTHORN_CLOSED once
 * the connection is closed.
 */
export class Admin {
  readonly #engine: () => Engine
  readonly #onTopicDeleted: () => void

  /** Made by `connect`. `engine` throws when the connection is closed. */
  constructor(engine: () => Engine, onTopicDeleted: () => void) {
    this.#engine = engine
    this.#onTopicDeleted = onTopicDeleted
  }

  /** All topics and queues, with their partitions and sizes. */
  async topics(): Promise<readonly TopicState[]> {
    return await this.#engine().admin.topics()
  }

  /** All subscriptions, or those of one topic, with backlog, lag, retries and dead letters. */
  async subscriptions(topic?: TopicReference): Promise<readonly SubscriptionState[]> {
    return await this.#engine().admin.subscriptions(topic === undefined ? undefined : nameOf(topic))
  }

  /** The processes that consume, and until when each one's leases hold. */
  async consumers(): Promise<readonly ConsumerState[]> {
    return await this.#engine().admin.consumers()
  }

  /** Reads messages of one partition in offset order, without leasing them. */
  async peek(topic: TopicReference, request: PeekRequest = {}): Promise<readonly PeekedMessage[]> {
    checkOptionNames('peek options', request, peekNames)
    const { partition = 0, fromOffset = 0, limit = 100 } = request
    return await this.#engine().admin.peek(nameOf(topic), {
      partition: wholeNumber('partition', partition, { min: 0 }),
      fromOffset: wholeNumber('fromOffset', fromOffset, { min: 0 }),
      limit: wholeNumber('limit', limit, { min: 1, max: PAGE_MAX }),
    })
  }

  /** One page of a subscription's dead letters, oldest first. */
  async deadLetters(
    topic: TopicReference,
    subscription: string,
    page: DeadLetterPage = {},
  ): Promise<readonly DeadLetter[]> {
    checkOptionNames('deadLetters options', page, pageNames)
    const { limit = 100, afterId } = page
    return await this.#engine().admin.deadLetters(reference(topic, subscription), {
      limit: wholeNumber('limit', limit, { min: 1, max: PAGE_MAX }),
      ...(afterId !== undefined && { afterId: wholeNumber('afterId', afterId, { min: 0 }) }),
    })
  }

  /** All dead letters of a subscription, oldest first, read page by page as the loop asks for them. */
  async *eachDeadLetter(topic: TopicReference, subscription: string): AsyncGenerator<DeadLetter, void, undefined> {
    let page = await this.deadLetters(topic, subscription)
    while (page.length > 0) {
      yield* page
      page = await this.deadLetters(topic, subscription, { afterId: page.at(-1)!.id })
    }
  }

  /**
   * Puts dead letters back for delivery, as new first attempts. Resolves with how many. One that blocks its key
   * (`ordered: { onExhausted: 'block' }`) goes before what waits behind it, which follows once it is settled. Steps that
   * it has finished are not run again.
   */
  async redrive(topic: TopicReference, subscription: string, request: RedriveRequest = {}): Promise<number> {
    checkOptionNames('redrive options', request, redriveNames)
    return await this.#engine().admin.redrive(reference(topic, subscription), readRedrive(request))
  }

  /**
   * Deletes dead letters, all or those with these ids. Resolves with how many. Deleting one that blocks its key skips
   * it: the key goes on with what waits behind it.
   */
  async deleteDeadLetters(topic: TopicReference, subscription: string, ids?: readonly number[]): Promise<number> {
    const checkedIds = ids === undefined ? undefined : readIds(ids)
    return await this.#engine().admin.deleteDeadLetters(reference(topic, subscription), checkedIds)
  }

  /**
   * Delivers again everything from a place in the topic on, as far as it is still kept; `latest` skips everything up
   * to now. What handlers are busy with from there on is taken from them.
   */
  async replay(topic: TopicReference, subscription: string, from: From): Promise<void> {
    const position = readPosition('from', from)
    await this.#engine().admin.seek(reference(topic, subscription), position)
  }

  /** Stops deliveries of a subscription, in all processes, until `resume`. */
  async pause(topic: TopicReference, subscription: string): Promise<void> {
    await this.#engine().admin.pause(reference(topic, subscription))
  }

  async resume(topic: TopicReference, subscription: string): Promise<void> {
    await this.#engine().admin.resume(reference(topic, subscription))
  }

  /**
   * Stops the message that was published with this id (or was given it by `publish`), for all subscriptions: before its
   * time has come, while it waits, whether for its first attempt or another, or while a handler runs, whose signal
   * aborts with POSTHORN_CANCELLED wherever it runs. It is not delivered again, and becomes no dead letter. What is
   * settled already stays as it is. Resolves with how many deliveries were stopped, at which stage: all 0 when the id is
   * unknown or the message was settled everywhere. Handlers that came to their end while this call was under way may
   * be counted as stopped.
   */
  async cancel(topic: TopicReference, id: string): Promise<CancelOutcome> {
    checkText('id', id)
    return await this.#engine().admin.cancel(nameOf(topic), id)
  }

  /**
   * Deletes all messages of a topic, delivered or not, delayed ones too, and forgets their ids, so that they can be
   * published again; dead letters stay. Resolves with how many.
   */
  async purge(topic: TopicReference): Promise<number> {
    return await this.#engine().admin.purge(nameOf(topic))
  }

  /**
   * Deletes a subscription with its position, retries and dead letters. Where it is open, in this process or another,
   * it closes, with POSTHORN_SUBSCRIPTION_NOT_FOUND in the log: subscribe again to make it anew. A queue without its
   * subscription keeps what is published for the next one.
   */
  async deleteSubscription(topic: TopicReference, subscription: string): Promise<void> {
    await this.#engine().admin.deleteSubscription(reference(topic, subscription))
  }

  /** Deletes a topic with its messages and subscriptions, which close as with `deleteSubscription`. */
  async deleteTopic(topic: TopicReference): Promise<void> {
    await this.#engine().admin.deleteTopic(nameOf(topic))
    this.#onTopicDeleted()
  }

  /** Reads the whole store and lists what is wrong with it; empty when all is well. */
  async checkIntegrity(): Promise<readonly string[]> {
    return await this.#engine().admin.checkIntegrity()
  }

  /** Deletes what retention allows now, rather than at the next round. Resolves with how many messages. */
  async applyRetention(): Promise<number> {
    return await this.#engine().admin.applyRetention()
  }
}

function nameOf(topic: TopicReference): string {
  const name = typeof topic === 'string' ? topic : topic?.name
  checkName('topic', name)
  return name
}

function reference(topic: TopicReference, subscription: string): SubscriptionRef {
  checkName('subscription', subscription)
  return { topic: nameOf(topic), subscription }
}

function readRedrive({ ids, perSecond }: RedriveRequest): RedriveOptions {
  if (perSecond !== undefined && !(Number.isFinite(perSecond) && perSecond > 0)) {
    throw invalidOption('perSecond', `it is ${describe(perSecond)}; expected a number above 0`)
  }
  return { ...(ids !== undefined && { ids: readIds(ids) }), ...(perSecond !== undefined && { perSecond }) }
}

function readIds(ids: readonly number[]): readonly number[] {
  if (!Array.isArray(ids)) throw invalidOption('ids', `it is ${describe(ids)}; expected an array of dead-letter ids`)
  return ids.map((id: unknown) => wholeNumber('ids', id, { min: 0 }))
}
