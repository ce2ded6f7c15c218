import type {
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
} from '../../engine.ts'
import { FIRST_DELIVERY } from './leases.ts'
import type { MemoryEngine } from './memory-engine.ts'
import { applyRetention } from './retention.ts'
import { seek } from './seek.ts'
import { reportLost } from './settlement.ts'
import type { MemoryStore } from './store.ts'
import type { Subscription } from './subscription.ts'
import type { Topic } from './topic.ts'

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
    const log = this.#store.topic(topic).logs[partition]
    if (!log) return []
    const from = Math.max(fromOffset, log.firstOffset)
    return this.#store.decoded.read(log, from, from + limit).map((message) => ({ partition, message }))
  }

  async deadLetters(reference: SubscriptionRef, query: DeadLetterQuery): Promise<readonly DeadLetter[]> {
    this.#engine.begin('deadLetters')
    const { afterId = 0, limit } = query
    return this.#store
      .subscription(reference)
      .deadLetters.filter(({ id }) => id > afterId)
      .slice(0, limit)
  }

  async redrive(reference: SubscriptionRef, options: RedriveOptions): Promise<number> {
    const nowMs = this.#engine.begin('redrive')
    const subscription = this.#store.subscription(reference)
    const chosen = takeDeadLetters(subscription, options.ids, ({ event }) => event !== undefined)
    const spacingMs = options.perSecond === undefined ? 0 : MS_PER_SECOND / options.perSecond
    for (const [place, { partition, offset, event }] of chosen.entries()) {
      const dueAtMs = nowMs + Math.floor(place * spacingMs)
      const copy = event && { event }
      subscription.waiting.addRow({ ...FIRST_DELIVERY, partition, offset, dueAtMs, returned: false, ...copy })
    }
    this.#store.waiters.wake(subscription.topic)
    return chosen.length
  }

  async deleteDeadLetters(reference: SubscriptionRef, ids?: readonly number[]): Promise<number> {
    this.#engine.begin('deleteDeadLetters')
    return takeDeadLetters(this.#store.subscription(reference), ids, () => true).length
  }

  async seek(reference: SubscriptionRef, position: StartPosition): Promise<void> {
    const nowMs = this.#engine.begin('seek')
    seek(this.#store, this.#store.subscription(reference), position, nowMs)
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
      for (const [partition, log] of topic.logs.entries()) subscription.cursors[partition] = log.nextOffset
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
    const times = subscription.topic.logs.flatMap((log, partition) => {
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
  subscription.waiting.clear()
}

function takeDeadLetters(
  subscription: Subscription,
  ids: readonly number[] | undefined,
  isWanted: (letter: DeadLetter) => boolean,
): DeadLetter[] {
  const chosenIds = ids && new Set(ids)
  const isTaken = (letter: DeadLetter) => (!chosenIds || chosenIds.has(letter.id)) && isWanted(letter)
  const taken = subscription.deadLetters.filter(isTaken)
  subscription.deadLetters = subscription.deadLetters.filter((letter) => !isTaken(letter))
  return taken
}
