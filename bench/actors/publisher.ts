import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { connect, type Post } from 'posthorn'
import { signup, signups, userSignedUp } from '../signup.ts'

const LOOP_RESOLUTION_MS = 1
const NANOSECONDS_PER_MS = 1e6

/** A process that publishes. */
export class Publisher {
  #post: Post | undefined

  async open({ url, warmUp = 0 }: { url: string; warmUp?: number }): Promise<void> {
    this.#post = await connect(url)
    await this.#connected.publishAll(userSignedUp, signups(warmUp))
  }

  /** Publishes one message after the other and resolves with what each took. */
  async oneByOne({ messages }: { messages: number }): Promise<number[]> {
    const post = this.#connected
    const durationsMs: number[] = []
    for (let index = 0; index < messages; index++) {
      const startedAtMs = performance.now()
      await post.publish(userSignedUp, signup(index))
      durationsMs.push(performance.now() - startedAtMs)
    }
    return durationsMs
  }

  /** Keeps so many calls in flight, and resolves with messages per second. */
  async inFlight({ messages, calls }: { messages: number; calls: number }): Promise<number> {
    const post = this.#connected
    let next = 0
    const publishInTurn = async () => {
      while (next < messages) await post.publish(userSignedUp, signup(next++))
    }
    const startedAtMs = performance.now()
    await Promise.all(Array.from({ length: calls }, publishInTurn))
    return (messages * 1_000) / (performance.now() - startedAtMs)
  }

  /** Publishes a sequence, each message with a key of its own or with one of `keys`; resolves with messages per second. */
  async bulk({ messages, keys }: { messages: number; keys?: number }): Promise<number> {
    const startedAtMs = performance.now()
    await this.#connected.publishAll(userSignedUp, signups(messages, keys))
    return (messages * 1_000) / (performance.now() - startedAtMs)
  }

  /**
   * Publishes on a fixed schedule, whether earlier calls have been answered or not. Resolves, once all have been, with
   * the 99th percentile of the delay of this process's event loop meanwhile, in milliseconds.
   */
  async paced({ perSecond, seconds }: { perSecond: number; seconds: number }): Promise<number> {
    const delays = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS })
    delays.enable()
    const calls = await this.#publishOnSchedule(perSecond, Math.round(perSecond * seconds))
    await Promise.all(calls)
    delays.disable()
    // The histogram holds the time between two looks, which are meant to be one resolution apart.
    return Math.max(0, delays.percentile(99) / NANOSECONDS_PER_MS - LOOP_RESOLUTION_MS)
  }

  async close(): Promise<void> {
    await this.#connected.close()
  }

  async #publishOnSchedule(perSecond: number, messages: number): Promise<Promise<unknown>[]> {
    const post = this.#connected
    const calls: Promise<unknown>[] = []
    const startedAtMs = performance.now()
    while (calls.length < messages) {
      const due = Math.min(messages, Math.floor(((performance.now() - startedAtMs) * perSecond) / 1_000) + 1)
      while (calls.length < due) calls.push(post.publish(userSignedUp, signup(calls.length)))
      await setTimeout(1)
    }
    return calls
  }

  get #connected(): Post {
    if (this.#post === undefined) throw new Error('The publisher was not opened.')
    return this.#post
  }
}
