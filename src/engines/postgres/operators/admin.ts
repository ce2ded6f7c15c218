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
import type { Clock } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Turn, Turns } from '../delivery/turns.ts'
import type { Breakers } from '../limits/breakers.ts'
import type { Topics } from '../log/topics.ts'
import type { Settling } from '../settlement/settling.ts'
import { operators as sql } from '../sql/operators.ts'
import { Cancellation } from './cancellation.ts'
import { readConsumers, readSubscriptions, readTopics } from './inspection.ts'
import { findProblems } from './integrity.ts'
import { MessageSearch } from './message-search.ts'
import { peek } from './peek.ts'
import { Removal, type Touched } from './removal.ts'
import { type SeekParts, seek } from './seek.ts'
import { TopicChanges } from './topic-changes.ts'

export interface AdminParts extends SeekParts {
  readonly database: Database
  readonly clock: Clock
  readonly turns: Turns
  readonly topics: Topics
  readonly settling: Settling
  readonly breakers: Breakers
  /** Before each call: rejects with POSTHORN_CLOSED, and does what has fallen due. */
  begin(operation: string): void | Promise<void>
  /** There may be something for the pulls of all subscriptions of the topic, in any process. */
  wake(topicId: number): void
  /** What is under way in the subscription has changed: its sources, in any process, are to look at their leases. */
  wakeSubscription(subscriptionId: number): void
  /** Deletes what can be deleted. Returns how many messages. */
  applyRetention(): Promise<number>
}

const MS_PER_SECOND = 1000

/**
 * What operators see and do. Whoever waits for what a call has changed is told once that is committed. A change of a
 * subscription has a transaction of its own, and one of many dead letters has many: consumers of the subscription wait
 * for each, and with them whatever else their processes have to settle in the same turn.
 */
export class PostgresAdmin implements EngineAdmin {
  readonly #parts: AdminParts
  readonly #removal: Removal
  readonly #cancellation: Cancellation

  constructor(parts: AdminParts) {
    this.#parts = parts
    const changes = new TopicChanges(parts.database, parts.turns)
    const search = new MessageSearch(parts.database, parts.batches)
    this.#removal = new Removal(parts.database, parts.topics, changes)
    this.#cancellation = new Cancellation({ ...parts, search, changes })
  }

  async topics(): Promise<readonly TopicState[]> {
    await this.#parts.begin('topics')
    return readTopics(this.#parts.database)
  }

  async subscriptions(topic?: string): Promise<readonly SubscriptionState[]> {
    await this.#parts.begin('subscriptions')
    const { database, breakers, topics, clock } = this.#parts
    const chosen = topic === undefined ? undefined : await topics.find(topic)
    return readSubscriptions(database, breakers, chosen?.topicId, clock.now())
  }

  async consumers(): Promise<readonly ConsumerState[]> {
    await this.#parts.begin('consumers')
    return readConsumers(this.#parts.database)
  }

  async peek(topic: string, options: PeekOptions): Promise<readonly PeekedMessage[]> {
    await this.#parts.begin('peek')
    const { database, topics, batches } = this.#parts
    const { topicId } = await topics.find(topic)
    return peek(database, batches, topicId, options)
  }

  async deadLetters(subscription: SubscriptionRef, query: DeadLetterQuery): Promise<readonly DeadLetter[]> {
    await this.#parts.begin('deadLetters')
    const { database, topics, deadLetters } = this.#parts
    return deadLetters.page(database, await topics.findSubscription(subscription), query)
  }

  redrive(subscription: SubscriptionRef, { ids, perSecond }: RedriveOptions): Promise<number> {
    const { clock, deadLetters } = this.#parts
    const spacingMs = perSecond === undefined ? 0 : MS_PER_SECOND / perSecond
    const nowMs = clock.now()
    return this.#changeSome('redrive', subscription, ids, (turn, some, done) =>
      deadLetters.redrive(turn, { ids: some, spacingMs, fromMs: nowMs + Math.floor(done * spacingMs) }),
    )
  }

  deleteDeadLetters(subscription: SubscriptionRef, ids?: readonly number[]): Promise<number> {
    const { deadLetters } = this.#parts
    return this.#changeSome('deleteDeadLetters', subscription, ids, (turn, some) => deadLetters.delete(turn, some))
  }

  seek(subscription: SubscriptionRef, position: StartPosition): Promise<void> {
    return this.#change('seek', subscription, (turn) => seek(turn, this.#parts, position))
  }

  async cancel(topic: string, id: string): Promise<CancelOutcome> {
    await this.#parts.begin('cancel')
    const { outcome, ...touched } = await this.#cancellation.cancel(topic, id)
    if (outcome.waiting + outcome.running > 0) this.#tell(touched)
    return outcome
  }

  pause(subscription: SubscriptionRef): Promise<void> {
    return this.#setPaused('pause', subscription, true)
  }

  resume(subscription: SubscriptionRef): Promise<void> {
    return this.#setPaused('resume', subscription, false)
  }

  async purge(topic: string): Promise<number> {
    await this.#parts.begin('purge')
    const { messages, ...touched } = await this.#removal.purge(topic)
    this.#tell(touched)
    return messages
  }

  async deleteSubscription(subscription: SubscriptionRef): Promise<void> {
    await this.#parts.begin('deleteSubscription')
    this.#tell(await this.#removal.deleteSubscription(subscription))
  }

  async deleteTopic(topic: string): Promise<void> {
    await this.#parts.begin('deleteTopic')
    const touched = await this.#removal.deleteTopic(topic)
    this.#parts.topics.forget(topic)
    this.#tell(touched)
  }

  async checkIntegrity(): Promise<readonly string[]> {
    await this.#parts.begin('checkIntegrity')
    return findProblems(this.#parts.database)
  }

  async applyRetention(): Promise<number> {
    await this.#parts.begin('applyRetention')
    return this.#parts.applyRetention()
  }

  async #change<Value>(
    operation: string,
    { topic, subscription }: SubscriptionRef,
    work: (turn: Turn) => Promise<Value>,
  ): Promise<Value> {
    await this.#parts.begin(operation)
    const { turns, topics } = this.#parts
    const { subscriptionId } = await topics.findSubscription({ topic, subscription })
    const value = await turns.across([subscriptionId], async ([turn]) => {
      if (!turn) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
      return work(turn)
    })
    this.#parts.wakeSubscription(subscriptionId)
    return value
  }

  /** Dead letters, those with these ids or all, some in each transaction. `work`: is told how many were done before. */
  async #changeSome(
    operation: string,
    subscription: SubscriptionRef,
    ids: readonly number[] | undefined,
    work: (turn: Turn, ids: readonly number[], done: number) => Promise<number>,
  ): Promise<number> {
    await this.#parts.begin(operation)
    const { database, topics, deadLetters } = this.#parts
    const key = await topics.findSubscription(subscription)
    let total = 0
    for await (const some of ids ? [ids] : deadLetters.all(database, key)) {
      const done = total
      total += await this.#change(operation, subscription, (turn) => work(turn, some, done))
    }
    return total
  }

  async #setPaused(operation: string, { topic, subscription }: SubscriptionRef, paused: boolean): Promise<void> {
    await this.#parts.begin(operation)
    const { database, topics } = this.#parts
    const { subscriptionId } = await topics.findSubscription({ topic, subscription })
    const found = await database.run(sql.setPaused, subscriptionId, paused)
    if (found === 0) throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
    this.#parts.wakeSubscription(subscriptionId)
  }

  #tell({ topicId, subscriptionIds }: Touched): void {
    for (const subscriptionId of subscriptionIds) this.#parts.wakeSubscription(subscriptionId)
    this.#parts.wake(topicId)
  }
}
