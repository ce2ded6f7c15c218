import type {
  CancelOutcome,
  ConsumerState,
  DeadLetter,
  DeadLetterQuery,
  EngineAdmin,
  PeekedMessage,
  PeekOptions,
  RedriveOptions,
  StartPosition,
  SubscriptionRef,
  SubscriptionState,
  TopicState,
} from '../../../engine.ts'
import { FIRST_DELIVERY } from '../delivery/leases.ts'
import { applyRetention } from '../log/retention.ts'
import type { MemoryEngine } from '../memory-engine.ts'
import type { BuriedMessage } from '../settlement/dead-letters.ts'
import { reportLost } from '../settlement/settlement.ts'
import type { MemoryStore } from '../store.ts'
import type { Subscription } from '../subscription.ts'
import type { Topic } from '../topic.ts'
import { cancel } from './cancel.ts'
import { seek } from './seek.ts'

const MS_PER_SECOND = 1000

/** What operators see and do: each call is one look at the store, or one change of it. */
export class MemoryAdmin implements EngineAdmin {
  readonly #engine: MemoryEngine

  constructor(engine: MemoryEngine) {
    this.#engine = engine
  }

  get #store(): MemoryStore {
    return this.#engine.store
  }

  async topics(): Promise<readonly TopicState[]> {
    this.#engine.begin('topics')
    return Array.from(this.#store.topics.values(), (topic) => topic.state())
  }

  async subscriptions(topic?: string): Promise<readonly SubscriptionState[]> {
    const nowMs = this.#engine.begin('subscriptions')
    const chosen = topic === undefined ? this.#store.subscriptions() : this.#store.topic(topic).subscriptions.values()
    return Array.from(chosen, (subscription) => subscription.state(nowMs, this.#oldestTimeMs(subscription)))
  }

  async consumers(): Promise<readonly ConsumerState[]> {
    this.#engine.begin('consumers')
    return Array.from(this.#store.sessions.values(), (session) => session.state()).filter(
      (state) => state !== undefined,
    )
  }

  async peek(topic: string, { partition, fromOffset, limit }: PeekOptions): Promise<readonly PeekedMessage[]> {
    this.#engine.begin('peek')
    const log = this.#store.topic(topic).logs.get(partition)
    if (!log) return []
    const from = Math.max(fromOffset, log.firstOffset)
    return this.#store.decoded.read(log, from, from + limit).map((message) => ({ partition, message }))
  }

  async deadLetters(reference: SubscriptionRef, query: DeadLetterQuery): Promise<readonly DeadLetter[]> {
    this.#engine.begin('deadLetters')
    const { afterId = 0, limit } = query
    return this.#store.subscription(reference).deadLetters.page(afterId, limit)
  }

  async redrive(reference: SubscriptionRef, options: RedriveOptions): Promise<number> {
    const nowMs = this.#engine.begin('redrive')
    const subscription = this.#store.subscription(reference)
    const isChosen = among(options.ids)
    const chosen = subscription.deadLetters.take((letter) => isChosen(letter) && letter.event !== undefined)
    const spacingMs = options.perSecond === undefined ? 0 : MS_PER_SECOND / options.perSecond
    for (const [place, buried] of chosen.entries()) reopen(subscription, buried, nowMs + Math.floor(place * spacingMs))
    for (const { letter, key } of chosen) subscription.chains.advance(letter.partition, key, nowMs)
    this.#store.waiters.wake(subscription.topic)
    return chosen.length
  }

  async deleteDeadLetters(reference: SubscriptionRef, ids?: readonly number[]): Promise<number> {
    const nowMs = this.#engine.begin('deleteDeadLetters')
    const subscription = this.#store.subscription(reference)
    const deleted = subscription.deadLetters.take(among(ids))
    for (const { letter, key } of deleted) subscription.chains.advance(letter.partition, key, nowMs)
    subscription.sweepSteps()
    this.#store.waiters.wake(subscription.topic)
    return deleted.length
  }

  async seek(reference: SubscriptionRef, position: StartPosition): Promise<void> {
    const nowMs = this.#engine.begin('seek')
    seek(this.#store, this.#store.subscription(reference), position, nowMs)
  }

  async cancel(topic: string, id: string): Promise<CancelOutcome> {
    const nowMs = this.#engine.begin('cancel')
    return cancel(this.#store, this.#store.topic(topic), id, nowMs)
  }

  async pause(reference: SubscriptionRef): Promise<void> {
    this.#engine.begin('pause')
    this.#store.subscription(reference).paused = true
  }

  async resume(reference: SubscriptionRef): Promise<void> {
    this.#engine.begin('resume')
    const subscription = this.#store.subscription(reference)
    subscription.paused = false
    this.#store.waiters.wake(subscription.topic)
  }

  async purge(topicName: string): Promise<number> {
    this.#engine.begin('purge')
    const topic = this.#store.topic(topicName)
    for (const subscription of topic.subscriptions.values()) {
      abandonDeliveries(subscription, 'the topic was purged')
      for (const [partition, log] of topic.logs) subscription.move(partition, log.nextOffset)
      subscription.sweepSteps()
    }
    const deleted = topic.purge()
    this.#store.waiters.wakeAll()
    return deleted
  }

  async deleteSubscription(reference: SubscriptionRef): Promise<void> {
    this.#engine.begin('deleteSubscription')
    this.#delete(this.#store.subscription(reference))
    this.#store.waiters.wakeAll()
  }

  async deleteTopic(topicName: string): Promise<void> {
    this.#engine.begin('deleteTopic')
    const topic: Topic = this.#store.topic(topicName)
    for (const subscription of [...topic.subscriptions.values()]) this.#delete(subscription)
    this.#store.topics.delete(topicName)
    this.#store.waiters.wakeAll()
  }

  /** Nothing can damage the memory of a process behind its back, so there is nothing to list. */
  async checkIntegrity(): Promise<readonly string[]> {
    this.#engine.begin('checkIntegrity')
    return []
  }

  async applyRetention(): Promise<number> {
    const nowMs = this.#engine.begin('applyRetention')
    return [...this.#store.topics.values()].reduce((deleted, topic) => deleted + applyRetention(topic, nowMs), 0)
  }

  #delete(subscription: Subscription): void {
    subscription.deleted = true
    abandonDeliveries(subscription, 'the subscription was deleted')
    subscription.topic.removeSubscription(subscription.name)
  }

  #oldestTimeMs(subscription: Subscription): number | undefined {
    const times = Array.from(subscription.topic.logs).flatMap(([partition, log]) => {
      const position = subscription.position(partition)
      const message = this.#store.decoded.read(log, position, position + 1)[0]
      return message ? [Date.parse(message.event.time)] : []
    })
    return times.length === 0 ? undefined : Math.min(...times)
  }
}

/** Forgets what is leased or waits: nothing of it is delivered again. */
function abandonDeliveries(subscription: Subscription, reason: string): void {
  reportLost([...subscription.leases.values()], reason)
  subscription.leases.clear()
  subscription.returned.clear()
  subscription.rows.clear()
}

/** Gives a dead letter another life. What is behind it of its key waits for it. */
function reopen(subscription: Subscription, { letter, key }: BuriedMessage, dueAtMs: number): void {
  const { rows, chains, ordered, steps } = subscription
  const { partition, offset, event } = letter
  const history = { ...FIRST_DELIVERY, ...(event && { event }) }
  const wait = { for: 'time', dueAtMs } as const
  rows.add({ partition, offset, key, history, wait, status: 'retrying', isLeased: false, failedUnder: undefined })
  steps.forgetProblems(letter)
  if (ordered) chains.holdBehind(partition, key, offset)
}

function among(ids: readonly number[] | undefined): (letter: DeadLetter) => boolean {
  const chosen = ids && new Set(ids)
  return ({ id }) => !chosen || chosen.has(id)
}
