import assert from 'node:assert/strict'
import type {
  AppendReceipt,
  DeadLetter,
  Engine,
  EngineAdmin,
  Limit,
  SubscriptionConfig,
  SubscriptionState,
  TopicConfig,
  TopicState,
} from '../../src/engine.ts'
import type { Environment } from '../../src/environment/index.ts'
import { newGroup, newMessage, type PublishOptions, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { ProcessClock } from './process-clock.ts'
import { TestSource } from './test-source.ts'
import { LEASE_MS, type World } from './world.ts'

const DAY_MS = 86_400_000

/** An engine, with short ways to say what tests do with it. */
export class TestProcess {
  readonly engine: Engine
  readonly world: World
  readonly environment: Environment
  readonly #clock: ProcessClock
  readonly #sources = new Set<TestSource>()
  #isAlive = true
  #isKilled = false

  constructor(world: World, engine: Engine, environment: Environment, clock: ProcessClock) {
    this.world = world
    this.environment = environment
    this.engine = engine
    this.#clock = clock
  }

  get isAlive(): boolean {
    return this.#isAlive
  }

  /** Dead for good: there is nothing left to close. */
  get isKilled(): boolean {
    return this.#isKilled
  }

  get admin(): EngineAdmin {
    return this.engine.admin
  }

  /** By the time that it resolves, the engine has dealt with everything asked of it before. */
  async roundTrip(): Promise<void> {
    await this.engine.admin.topics()
  }

  async topic(config: Partial<TopicConfig> = {}): Promise<void> {
    const retention = { maxAgeMs: 7 * DAY_MS, dropUnread: false }
    await this.engine.ensureTopic({
      topic: TOPIC,
      kind: 'topic',
      partitions: 1,
      deduplicationWindowMs: 60_000,
      retention,
      ...config,
    })
  }

  async subscription(config: Partial<SubscriptionConfig> = {}): Promise<void> {
    await this.engine.ensureSubscription({
      topic: TOPIC,
      subscription: SUBSCRIPTION,
      maxCrashes: 2,
      ordered: false,
      maxParked: 100_000,
      ...config,
    })
  }

  async source(
    subscription: string = SUBSCRIPTION,
    topic: string = TOPIC,
    limits: readonly Limit[] = [],
  ): Promise<TestSource> {
    const source = await TestSource.open(this, { topic, subscription, handlerTimeoutMs: LEASE_MS, limits })
    this.#sources.add(source)
    return source
  }

  /** Topic, subscription and source, made as they are needed. */
  async subscribe(config: Partial<SubscriptionConfig> = {}): Promise<TestSource> {
    await this.subscription(config)
    return this.source(config.subscription, config.topic)
  }

  async publish(data: readonly unknown[], options: PublishOptions = {}): Promise<readonly AppendReceipt[]> {
    const messages = data.map((item) => newMessage(item, this.world.clock.now(), options))
    const [outcome] = await this.engine.append([newGroup(messages, options.topic)])
    assert.ok(outcome && 'receipts' in outcome, 'the group was refused')
    return outcome.receipts
  }

  async topicState(topic: string = TOPIC): Promise<TopicState> {
    const state = (await this.admin.topics()).find((candidate) => candidate.topic === topic)
    assert.ok(state, `no topic ${topic}`)
    return state
  }

  async state(subscription: string = SUBSCRIPTION): Promise<SubscriptionState> {
    const state = (await this.admin.subscriptions()).find((candidate) => candidate.subscription === subscription)
    assert.ok(state, `no subscription ${subscription}`)
    return state
  }

  deadLetters(subscription: string = SUBSCRIPTION): Promise<readonly DeadLetter[]> {
    return this.admin.deadLetters({ topic: TOPIC, subscription }, { limit: 1_000 })
  }

  /** Its event loop is blocked: time stands still for it, and it renews nothing. */
  stall(): void {
    this.#isAlive = false
    this.#clock.stop()
  }

  goOn(): void {
    this.#isAlive = true
    this.#clock.goOn()
  }

  /** As by `kill -9`. */
  async crash(): Promise<void> {
    this.#isAlive = false
    if (this.world.harness.crash) {
      this.#isKilled = true
      await this.world.harness.crash(this.engine)
    }
    this.#clock.stop()
    for (const source of this.#sources) source.stopPulling()
  }

  /** `close` is how what runs on the engine closes it. */
  async close(close: () => Promise<void> = () => this.engine.close()): Promise<void> {
    this.#isAlive = false
    await close()
  }
}
