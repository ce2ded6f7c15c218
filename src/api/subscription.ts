/**
 * The user's handle on one subscription of this process.
 *
 * States: *opening* from the start (the topic and the subscription are made to exist, the consumer starts; while the
 * store is away it is tried again), then *running*, or *failed*: `ready` rejects, the failure is logged, nothing runs. `close` may come in any of them; what
 * comes during the opening takes effect as soon as that is over. A running one whose subscription is deleted closes.
 */
import type { Consumer } from '../consumer/consumer.ts'
import type { Logger } from '../environment/index.ts'
import { errorFields } from './error-fields.ts'

export class Subscription implements AsyncDisposable {
  readonly topic: string
  readonly name: string
  /**
   * Resolves once the subscription exists and its consumer runs: from then on every message published reaches it.
   * Rejects when it could not be opened; that is logged too, so it need not be awaited. While the store is away it is
   * pending: opening is tried again until it succeeds, which is logged as well, or until the subscription is closed.
   */
  readonly ready: Promise<void>
  readonly #consumer: Promise<Consumer | undefined>
  readonly #onClosed: (subscription: Subscription) => void
  readonly #endOpening: () => void
  #closing: Promise<void> | undefined

  /** Made by `Post.subscribe`. `endOpening`: `opening` is not to be tried again. */
  constructor(
    address: { readonly topic: string; readonly name: string },
    opening: Promise<Consumer>,
    endOpening: () => void,
    logger: Logger,
    onClosed: (subscription: Subscription) => void,
  ) {
    this.topic = address.topic
    this.name = address.name
    this.#onClosed = onClosed
    this.#endOpening = endOpening
    this.ready = opening.then(() => {})
    this.#consumer = opening.catch((error: unknown) => {
      logger.error('A subscription could not be opened.', {
        topic: this.topic,
        subscription: this.name,
        ...errorFields(error),
      })
      return undefined
    })
    this.ready.catch(() => this.#onClosed(this))
    this.#consumer.then((consumer) => consumer?.ended.then(() => this.close()))
  }

  /**
   * Starts no more handlers, hands back what was not started, and waits for those that run, for at most the
   * connection's `drainTimeout`; then their signals abort. Idempotent. The subscription itself stays in the store.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#endOpening()
    const consumer = await this.#consumer
    await consumer?.close()
    this.#onClosed(this)
  }
}
