import type { SubscriptionConfig, SubscriptionRef, TopicConfig } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import type { Session } from './delivery/sessions.ts'
import { DecodedBatches } from './log/decoded.ts'
import { startOffsets } from './log/positions.ts'
import { Settling } from './settlement/settlement.ts'
import { Subscription } from './subscription.ts'
import { Topic } from './topic.ts'
import { Waiters } from './waiters.ts'

/**
 * What all engines of one `memory:` URL share. It has no clock: each engine brings the time of its own, and lets the
 * store catch up with it before every operation. Everything runs to its end within one turn of the event loop, so
 * there are no half-done changes to guard against.
 */
export class MemoryStore {
  readonly topics = new Map<string, Topic>()
  readonly sessions = new Map<string, Session>()
  readonly decoded = new DecodedBatches()
  readonly waiters = new Waiters()
  #lastId = 0

  /** Ids of sessions, leases and dead letters: never used twice. */
  readonly nextId = (): number => ++this.#lastId

  topic(name: string): Topic {
    const topic = this.topics.get(name)
    if (!topic) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: name })
    return topic
  }

  subscription({ topic, subscription }: SubscriptionRef): Subscription {
    const found = this.topic(topic).subscriptions.get(subscription)
    if (!found) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
    return found
  }

  *subscriptions(): Generator<Subscription> {
    for (const topic of this.topics.values()) yield* topic.subscriptions.values()
  }

  ensureTopic(config: TopicConfig): void {
    const topic = this.topics.get(config.topic)
    if (topic) topic.reconfigure(config)
    else this.topics.set(config.topic, new Topic(config))
  }

  ensureSubscription(config: SubscriptionConfig, nowMs: number): void {
    const { topic: topicName, subscription: name, start } = config
    const topic = this.topic(topicName)
    const existing = topic.subscriptions.get(name)
    if (existing) {
      existing.reconfigure(config, nowMs)
      this.waiters.wake(topic)
      return
    }
    if (topic.config.kind === 'queue' && topic.subscriptions.size > 0) {
      throw new PosthornError('POSTHORN_QUEUE_SUBSCRIPTION', { topic: topicName, subscription: name })
    }
    const cursors = startOffsets(topic, start, this.decoded)
    topic.subscriptions.set(name, new Subscription(topic, config, cursors))
    topic.hadSubscription = true
  }

  /** Does what has fallen due by `nowMs`: gives up sessions that ran out, lets delayed messages into the log. */
  catchUp(nowMs: number): void {
    for (const session of this.sessions.values()) if (session.leaseUntilMs <= nowMs) this.#loseSession(session, nowMs)
    for (const topic of this.topics.values()) if (topic.promoteDue(nowMs)) this.waiters.wake(topic)
  }

  /** When there will be something new for a waiting pull of the subscription, if nothing happens before. */
  nextDueMs(subscription: Subscription, nowMs: number): number | undefined {
    const moments = [
      subscription.rows.nextDueMs(nowMs),
      subscription.topic.nextDelayedMs(),
      ...Array.from(this.sessions.values(), (session) => session.leaseUntilMs),
    ].filter((moment) => moment !== undefined)
    return moments.length === 0 ? undefined : Math.min(...moments)
  }

  #loseSession(session: Session, nowMs: number): void {
    this.sessions.delete(session.id)
    for (const subscription of this.subscriptions()) {
      const lost = [...subscription.leases.values()].filter((lease) => lease.holder.session === session)
      new Settling(this, subscription, nowMs).lose(lost)
      for (const source of subscription.sources) if (source.session === session) subscription.forgetSource(source)
    }
    this.waiters.wakeAll()
  }
}
