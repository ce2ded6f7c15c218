import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'
import type { ConformanceHarness } from '../conformance/harness.ts'
import { TOPIC } from '../conformance/messages.ts'
import type { TestProcess } from '../conformance/test-process.ts'
import type { TestSource } from '../conformance/test-source.ts'
import { World } from '../conformance/world.ts'
import { SUBSCRIPTIONS, WINDOW_MS } from './model.ts'
import type { Position } from './subscription-model.ts'

export const SLOTS = 3
export const PARTITIONS = 2

interface Running {
  readonly process: TestProcess
  readonly sources: ReadonlyMap<string, TestSource>
}

/** A lease that its process lost and may still try to settle. */
export interface Ghost {
  readonly slot: number
  readonly source: TestSource
  readonly grant: Grant
}

/** Where each message of the log stands, by its data; and the end of each partition. */
export interface Positions {
  readonly positions: ReadonlyMap<number, Position>
  readonly ends: ReadonlyMap<number, number>
}

/** The store under test, and up to three processes that use it, each opened when it is first needed. */
export class Real {
  readonly world: World
  ghosts: Ghost[] = []
  readonly #running = new Map<number, Running>()

  private constructor(world: World) {
    this.world = world
  }

  static async create(harness: ConformanceHarness): Promise<Real> {
    const real = new Real(await World.create(harness))
    const process = await real.world.process()
    await process.topic({ partitions: PARTITIONS, deduplicationWindowMs: WINDOW_MS })
    for (const config of SUBSCRIPTIONS) await process.subscription(config)
    await process.close()
    return real
  }

  get nowMs(): number {
    return this.world.clock.now()
  }

  async process(slot: number): Promise<TestProcess> {
    return (await this.#runningIn(slot)).process
  }

  async source(slot: number, subscription: string): Promise<TestSource> {
    return (await this.#runningIn(slot)).sources.get(subscription)!
  }

  async close(slot: number): Promise<void> {
    const running = this.#forget(slot)
    await running?.process.close()
  }

  async crash(slot: number): Promise<void> {
    const running = this.#forget(slot)
    await running?.process.crash()
  }

  async positions(process: TestProcess): Promise<Positions> {
    const { partitions } = await process.topicState()
    const positions = new Map<number, Position>()
    for (const { partition } of partitions) {
      for (const { message } of await process.admin.peek(TOPIC, { partition, fromOffset: 0, limit: 10_000 })) {
        assert.ok(!positions.has(message.event.data as number), 'a message was stored twice')
        positions.set(message.event.data as number, { partition, offset: message.offset })
      }
    }
    return { positions, ends: new Map(partitions.map(({ partition, nextOffset }) => [partition, nextOffset])) }
  }

  async #runningIn(slot: number): Promise<Running> {
    const running = this.#running.get(slot) ?? (await this.#open())
    this.#running.set(slot, running)
    return running
  }

  async #open(): Promise<Running> {
    const process = await this.world.process()
    await process.topic({ partitions: PARTITIONS, deduplicationWindowMs: WINDOW_MS })
    const sources = new Map<string, TestSource>()
    for (const { subscription } of SUBSCRIPTIONS) sources.set(subscription, await process.source(subscription))
    return { process, sources }
  }

  #forget(slot: number): Running | undefined {
    const running = this.#running.get(slot)
    this.#running.delete(slot)
    this.ghosts = this.ghosts.filter((ghost) => ghost.slot !== slot)
    return running
  }
}
