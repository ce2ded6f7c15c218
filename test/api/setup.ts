import type { TestContext } from 'node:test'
import { type ConnectOptions, connect, type Logger, type Post, silentLogger } from 'posthorn'

/** A connection to a store of its own, or to `url`, that is closed when the test ends. */
export async function open(context: TestContext, options: ConnectOptions = {}, url = 'memory:'): Promise<Post> {
  const post = await connect(url, { ...options, environment: { logger: silentLogger, ...options.environment } })
  context.after(() => post.close())
  return post
}

/** A logger that keeps what is logged as errors. */
export function recordingLogger(): { logger: Logger; errors: { message: string; fields: unknown }[] } {
  const errors: { message: string; fields: unknown }[] = []
  return { errors, logger: { ...silentLogger, error: (message, fields) => errors.push({ message, fields }) } }
}

/** Collects what a handler is called with; `of(count)` resolves once that many have come. */
export class Collector<Item> {
  readonly items: Item[] = []
  #arrived: PromiseWithResolvers<void> = Promise.withResolvers()

  readonly add = (item: Item): void => {
    this.items.push(item)
    this.#arrived.resolve()
    this.#arrived = Promise.withResolvers()
  }

  async of(count: number): Promise<readonly Item[]> {
    while (this.items.length < count) await this.#arrived.promise
    return this.items
  }
}
