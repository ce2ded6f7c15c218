import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import type { Post } from 'posthorn'
import { coded, events, eventually } from './faults-stage.ts'

const REFUSALS = coded('POSTHORN_STORAGE_UNAVAILABLE', 'POSTHORN_STORAGE_FAILED', 'POSTHORN_OUTCOME_UNKNOWN')
const AT_ONCE = 20

/** Publishes as fast as it can, whatever happens, until it is stopped. Ids of its own make it safe to publish again. */
export class Publishing {
  readonly acknowledged: string[] = []
  refused = 0
  readonly #name: string
  readonly #post: Post
  readonly #ended: Promise<unknown>
  #stopping = false

  constructor(post: Post, name: string) {
    this.#name = name
    this.#post = post
    this.#ended = Promise.all(Array.from({ length: AT_ONCE }, (_, number) => this.#run(number)))
  }

  /** Resolves once so many more were acknowledged. */
  async goesOn(count = 50): Promise<void> {
    const wanted = this.acknowledged.length + count
    await eventually(() => assert.ok(this.acknowledged.length >= wanted))
  }

  async stop(): Promise<readonly string[]> {
    this.#stopping = true
    await this.#ended
    return this.acknowledged
  }

  async #run(number: number): Promise<void> {
    for (let count = 0; !this.#stopping; count++) await this.#publish(`${this.#name}.${number}.${count}`)
  }

  async #publish(label: string): Promise<void> {
    while (!this.#stopping) {
      try {
        await this.#post.publish(events, { label }, { id: label })
        this.acknowledged.push(label)
        return
      } catch (error) {
        REFUSALS(error)
        this.refused++
        await turn()
      }
    }
  }
}
