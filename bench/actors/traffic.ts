import { setTimeout } from 'node:timers/promises'
import { connect, type Post, silentLogger } from 'posthorn'
import { signup, welcomeMails } from '../signup.ts'

/** How often it publishes what is due. */
const TICK_MS = 50
/** One message in so many fails at first and is handled again, and as many have ids of the publisher's. */
const EVERY = 20
/** What is not handled yet may grow to so many messages before it waits. */
const BEHIND_MAX = 100_000

export interface TrafficTask {
  readonly messages: number
  readonly perSecond: number
}

/** A process that publishes jobs at a steady pace and handles them, as a program does for years. */
export class Traffic {
  #post: Post | undefined
  #published = 0
  #handled = 0

  async open({ url }: { url: string }): Promise<void> {
    // Of each message that fails at first there would be a line.
    this.#post = await connect(url, { environment: { logger: silentLogger } })
  }

  /** Resolves once all was handled. */
  async run({ messages, perSecond }: TrafficTask): Promise<void> {
    const post = this.#post!
    const subscription = post.subscribe(
      welcomeMails,
      async (event, { attempt }) => {
        if (attempt === 1 && numberOf(event.data.userId) % EVERY === 0) throw new Error('The mailbox is busy.')
        this.#handled++
      },
      { retry: { backoff: { type: 'fixed', delay: '500ms' } }, concurrency: 100 },
    )
    await subscription.ready
    await this.#publish(messages, perSecond)
    while (this.#handled < messages) await setTimeout(TICK_MS)
    await subscription.close()
  }

  async handled(): Promise<number> {
    return this.#handled
  }

  async close(): Promise<void> {
    await this.#post!.close()
  }

  async #publish(messages: number, perSecond: number): Promise<void> {
    const startedAtMs = performance.now()
    while (this.#published < messages) {
      await setTimeout(TICK_MS)
      const due = Math.min(messages, Math.floor(((performance.now() - startedAtMs) * perSecond) / 1_000))
      if (this.#published - this.#handled > BEHIND_MAX) continue
      await this.#post!.publishAll(welcomeMails, jobs(this.#published, due), ({ userId }) => {
        return numberOf(userId) % EVERY === 1 ? { id: userId } : undefined
      })
      this.#published = Math.max(this.#published, due)
    }
  }
}

function* jobs(from: number, to: number) {
  for (let number = from; number < to; number++) yield signup(number)
}

/** It is `u-` and the number of the user. */
function numberOf(userId: string): number {
  return Number(userId.slice(2))
}
