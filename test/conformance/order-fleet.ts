import assert from 'node:assert/strict'
import { newGroup, newMessage } from './messages.ts'
import { OrderLog } from './order-log.ts'
import { type Numbered, OrderWorker, PARTITIONS, type WorkerSettings } from './order-worker.ts'
import type { TestProcess } from './test-process.ts'
import type { World } from './world.ts'

const WORKERS_MAX = 3
const ROUND_MS = 250
const ROUNDS_MAX = 1_000

export interface FleetSettings extends WorkerSettings {
  /** What `options.retry` says. */
  readonly attempts: number
}

/** The workers of a test, the operator beside them, and the log of what the handlers did. */
export class Fleet {
  readonly log: OrderLog
  readonly operator: TestProcess
  readonly #world: World
  readonly #settings: FleetSettings
  readonly #workers: OrderWorker[] = []
  readonly #closing = new Set<Promise<void>>()
  #joined = 0

  private constructor(world: World, operator: TestProcess, settings: FleetSettings) {
    this.#world = world
    this.operator = operator
    this.#settings = settings
    this.log = new OrderLog(settings.attempts)
  }

  /** Runs `body`, and closes what is left of the fleet. */
  static async run(world: World, settings: FleetSettings, body: (fleet: Fleet) => Promise<void>): Promise<void> {
    const operator = await world.process()
    await operator.topic({ partitions: PARTITIONS })
    const fleet = new Fleet(world, operator, settings)
    try {
      await body(fleet)
    } finally {
      await fleet.#end()
    }
  }

  async publish(key: string, count: number, padding?: string): Promise<void> {
    const messages = Array.from({ length: count }, () => {
      const data: Numbered = { number: this.log.next(key), ...(padding !== undefined && { padding }) }
      return newMessage(data, this.#world.clock.now(), { key })
    })
    const [outcome] = await this.operator.engine.append([newGroup(messages)])
    assert.ok(outcome && 'receipts' in outcome)
  }

  /** One worker more, unless there are enough. */
  async join(): Promise<void> {
    if (this.#workers.length >= WORKERS_MAX) return
    this.#joined++
    const name = `worker-${this.#joined}`
    this.#workers.push(await OrderWorker.start(this.#world, name, this.log, this.#settings))
  }

  /** The one that has been there longest closes, while the others go on. */
  closeOne(): void {
    const worker = this.#workers.shift()
    if (!worker) return
    const closing = worker.close().finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }

  async killOne(): Promise<void> {
    await this.#workers.shift()?.kill()
  }

  /** Lets time pass, and everybody do what is to be done by then. */
  async round(durationMs: number = ROUND_MS): Promise<void> {
    await this.#world.advance(durationMs)
  }

  /** Lets time pass until `check` no longer throws. */
  async eventually(check: () => Promise<void> | void): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      try {
        return await check()
      } catch (error) {
        if (!(error instanceof assert.AssertionError)) throw error
        await this.round()
      }
    }
    await check()
  }

  async #end(): Promise<void> {
    while (this.#workers.length > 0) this.closeOne()
    for (let round = 0; this.#closing.size > 0 && round < ROUNDS_MAX; round++) await this.round()
  }
}
