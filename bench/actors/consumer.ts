import { setTimeout } from 'node:timers/promises'
import { connect, type DeliveryContext, type Post, type SubscribeOptions, type Subscription } from 'posthorn'
import { nowUs, userSignedUp } from '../signup.ts'

/** What a consumer is to do with the messages of each of its subscriptions. */
export interface Task {
  readonly subscriptions: readonly string[]
  /** How many messages each subscription is to get before the work is done. */
  readonly messages: number
  readonly concurrency?: number
  /** How long the handler takes. Default: it returns at once. */
  readonly handlerMs?: number
  /** Record how long each message took from the call of `publish` to the handler. */
  readonly timed?: boolean
  /** Record when each handler was called. */
  readonly clocked?: boolean
  /** What each handler does: a durable step. */
  readonly step?: boolean
  readonly ordered?: boolean
  readonly perSecond?: number
}

type Handler = (
  event: { readonly data: { readonly calledAtUs: number } },
  context: Pick<DeliveryContext, 'step'>,
) => Promise<void>

/** A process that consumes. */
export class Consumer {
  #post: Post | undefined
  #subscriptions: Subscription[] = []
  #left = 0
  readonly #latenciesMs: number[] = []
  readonly #callsUs: number[] = []
  #handled = 0
  #done = Promise.withResolvers<void>()

  async open({ url }: { url: string }): Promise<void> {
    this.#post = await connect(url)
  }

  /** Works off a backlog, from subscribing to the last settlement. Resolves with deliveries per second. */
  async drain(task: Task): Promise<number> {
    const startedAtMs = performance.now()
    await this.subscribe(task)
    await this.finish()
    const seconds = (performance.now() - startedAtMs) / 1_000
    return (task.messages * task.subscriptions.length) / seconds
  }

  async subscribe(task: Task): Promise<void> {
    const { subscriptions, messages } = task
    this.#left = messages * subscriptions.length
    this.#done = Promise.withResolvers()
    const handler = this.#handler(task)
    this.#subscriptions = subscriptions.map((name) =>
      this.#connected.subscribe(userSignedUp, name, handler, optionsOf(task)),
    )
    await Promise.all(this.#subscriptions.map(({ ready }) => ready))
  }

  /** Resolves once everything was handled and settled. */
  async finish(): Promise<void> {
    await this.#done.promise
    await Promise.all(this.#subscriptions.map((subscription) => subscription.close()))
    const states = await this.#connected.admin.subscriptions(userSignedUp)
    const names = new Set(this.#subscriptions.map(({ name }) => name))
    const open = states.filter(({ subscription, leased, returned, backlog }) => {
      return names.has(subscription) && leased + returned + backlog > 0
    })
    if (open.length > 0) throw new Error(`Not everything was settled: ${JSON.stringify(open)}`)
  }

  /** Milliseconds between the call of `publish` and the start of the handler, of every message handled. */
  async latencies(): Promise<number[]> {
    return this.#latenciesMs
  }

  /** When handlers were called, in microseconds since the epoch. */
  async calls(): Promise<number[]> {
    return this.#callsUs
  }

  async handled(): Promise<number> {
    return this.#handled
  }

  async close(): Promise<void> {
    await this.#connected.close()
  }

  #handler({ handlerMs, timed, clocked, step }: Task): Handler {
    if (timed === true) {
      return async (event) => {
        this.#latenciesMs.push((nowUs() - event.data.calledAtUs) / 1_000)
        this.#count()
      }
    }
    if (clocked === true) {
      return async () => {
        this.#callsUs.push(nowUs())
        this.#count()
      }
    }
    if (step === true) {
      return async (_event, context) => {
        await context.step('charge', () => ({ charged: true }))
        this.#count()
      }
    }
    if (handlerMs === undefined) return async () => this.#count()
    return async () => {
      await setTimeout(handlerMs)
      this.#count()
    }
  }

  #count(): void {
    this.#handled++
    this.#left--
    if (this.#left === 0) this.#done.resolve()
  }

  get #connected(): Post {
    if (this.#post === undefined) throw new Error('The consumer was not opened.')
    return this.#post
  }
}

function optionsOf({ concurrency = 10, ordered = false, perSecond }: Task): SubscribeOptions {
  const rateLimit = perSecond === undefined ? {} : { rateLimit: { limit: perSecond, per: '1s' as const } }
  return { concurrency, ordered, ...rateLimit, from: 'earliest' }
}
