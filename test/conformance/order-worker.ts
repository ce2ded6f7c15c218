import { Post } from '../../src/api/post.ts'
import type { SubscribeOptions } from '../../src/api/subscribe-options.ts'
import type { Subscription } from '../../src/api/subscription.ts'
import { topic } from '../../src/api/topic.ts'
import { pause } from '../../src/environment/index.ts'
import { SUBSCRIPTION, TOPIC } from './messages.ts'
import { MortalEngine } from './mortal-engine.ts'
import type { OrderLog, Run } from './order-log.ts'
import type { TestProcess } from './test-process.ts'
import type { World } from './world.ts'

/** What a handler does with a message. */
export type Fate =
  | { readonly does: 'return' | 'throw'; readonly afterMs: number }
  /** Ignores its timeout: ends so long after it, or never. */
  | { readonly does: 'outrun'; readonly byMs: number | undefined }

/** What the messages carry. */
export interface Numbered {
  /** Their place among the messages of their key. */
  readonly number: number
  readonly padding?: string
}

export type Decide = (key: string, number: number, attempt: number) => Fate

export interface WorkerSettings {
  readonly options: SubscribeOptions
  readonly decide: Decide
  /** How long the next call to the engine, or its answer, is on its way. */
  readonly travelMs: () => number
}

export const PARTITIONS = 4
const DRAIN_MS = 100
const MIB = 1024 ** 2

/** A process with the consumer runtime on its engine, whose handlers do what `decide` says and write into the log. */
export class OrderWorker {
  readonly process: TestProcess
  readonly #name: string
  readonly #engine: MortalEngine
  readonly #post: Post
  readonly #log: OrderLog
  readonly #decide: Decide
  readonly #subscription: Subscription
  #isClosed = false

  private constructor(process: TestProcess, name: string, log: OrderLog, settings: WorkerSettings) {
    const { decide, travelMs, options } = settings
    this.process = process
    this.#name = name
    this.#log = log
    this.#decide = decide
    this.#engine = new MortalEngine(process.engine, () => this.#pause(travelMs()))
    this.#post = new Post(this.#engine, process.environment, {
      source: 'conformance',
      maxMessageBytes: MIB,
      maxBufferedBytes: 64 * MIB,
      drainMs: DRAIN_MS,
      signals: [],
    })
    const definition = topic(TOPIC, { partitions: PARTITIONS })
    this.#subscription = this.#post.subscribe(
      definition,
      SUBSCRIPTION,
      async (event, context) => {
        const { attempt, signal } = context
        const { number } = event.data as Numbered
        const given = { key: event.subject!, number, attempt, where: this.#name }
        await this.#handle(given, signal)
      },
      options,
    )
  }

  static async start(world: World, name: string, log: OrderLog, settings: WorkerSettings): Promise<OrderWorker> {
    const worker = new OrderWorker(await world.process(), name, log, settings)
    await worker.#subscription.ready
    return worker
  }

  /** In an orderly way; time must pass meanwhile for running handlers to end. */
  async close(): Promise<void> {
    await this.process.close(() => this.#post.close())
    this.#isClosed = true
  }

  async kill(): Promise<void> {
    this.#engine.kill()
    await this.process.crash()
  }

  get #isAlive(): boolean {
    return !this.#engine.isDead && !this.#isClosed
  }

  // What the runtime of a dead process still calls has never happened.
  async #handle(given: Pick<Run, 'key' | 'number' | 'attempt' | 'where'>, signal: AbortSignal): Promise<void> {
    if (this.#engine.isDead) return silence()
    const run = this.#log.start({ ...given, isAlive: () => this.#isAlive && !signal.aborted })
    signal.addEventListener('abort', () => stop(run, signal.reason))
    const fate = this.#decide(given.key, given.number, given.attempt)
    if (fate.does === 'outrun') await this.#outrun(signal, fate.byMs)
    else await this.#pause(fate.afterMs)
    if (run.state === 'running' && this.#isAlive) run.state = fate.does === 'throw' ? 'failed' : 'succeeded'
    if (fate.does === 'throw') throw new Error(`attempt ${given.attempt} failed`)
  }

  async #outrun(signal: AbortSignal, byMs: number | undefined): Promise<void> {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    if (byMs === undefined) return silence()
    await this.#pause(byMs)
  }

  async #pause(durationMs: number): Promise<void> {
    if (durationMs > 0) await pause(this.process.environment.clock, durationMs)
  }
}

function silence(): Promise<never> {
  return new Promise(() => {})
}

// Whoever is told that its connection closes may still finish.
function stop(run: Run, reason: unknown): void {
  const code = reason instanceof Error && 'code' in reason ? reason.code : undefined
  if (run.state !== 'running' || code === 'POSTHORN_CLOSED') return
  run.state = code === 'POSTHORN_HANDLER_TIMEOUT' ? 'failed' : 'abandoned'
}
