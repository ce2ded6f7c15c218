import { setTimeout as sleep } from 'node:timers/promises'
import type { Post } from 'posthorn'

const LOOK_EVERY_MS = 200

export interface Backlog {
  readonly subscription: string
  /** The most events that it had before it at once: not begun, under way, or waiting for another attempt. */
  peak: number
  waiting: number
  deadLetters: number
  /** When nothing was waiting any more, in performance.now(); undefined while there is something. */
  drainedAt: number | undefined
}

/** Watches what the subscriptions have before them, from `start` until `close`, by asking Posthorn now and then. */
export class BacklogWatch {
  readonly backlogs = new Map<string, Backlog>()
  readonly #post: Post
  readonly #closed = new AbortController()
  #open: readonly string[] = []
  #round: Promise<void> = Promise.resolve()

  constructor(post: Post) {
    this.#post = post
  }

  start(): void {
    this.#round = this.#look()
  }

  get waiting(): number {
    return [...this.backlogs.values()].reduce((sum, { waiting }) => sum + waiting, 0)
  }

  describeBreakers(): string {
    if (this.#open.length === 0) return 'and no breaker is open'
    return `and the breaker of ${this.#open.join(' and ')} is open`
  }

  async #look(): Promise<void> {
    while (!this.#closed.signal.aborted) {
      await this.refresh()
      await sleep(LOOK_EVERY_MS, undefined, { signal: this.#closed.signal }).catch(() => {})
    }
  }

  async refresh(): Promise<void> {
    const states = await this.#post.admin.subscriptions()
    this.#open = states.filter(({ breakers }) => breakers.length > 0).map(({ subscription }) => subscription)
    for (const state of states) {
      const waiting = state.backlog + state.leased + state.retrying + state.returned + state.parked
      const before = this.backlogs.get(state.subscription)
      this.backlogs.set(state.subscription, {
        subscription: state.subscription,
        peak: Math.max(before?.peak ?? 0, waiting),
        waiting,
        deadLetters: state.deadLetters,
        drainedAt: waiting > 0 ? undefined : (before?.drainedAt ?? performance.now()),
      })
    }
  }

  /** Resolves with whether everything, or all of one subscription, was drained within `withinMs`. */
  async drained(withinMs: number, subscription?: string): Promise<boolean> {
    const giveUpAt = performance.now() + withinMs
    const waiting = () => (subscription === undefined ? this.waiting : (this.backlogs.get(subscription)?.waiting ?? 0))
    for (await this.refresh(); waiting() > 0; await this.refresh()) {
      if (performance.now() > giveUpAt) return false
      await sleep(LOOK_EVERY_MS)
    }
    return true
  }

  /** Resolves with whether some breaker opened within `withinMs`. */
  async breakerOpened(withinMs: number): Promise<boolean> {
    const giveUpAt = performance.now() + withinMs
    for (await this.refresh(); this.#open.length === 0; await this.refresh()) {
      if (performance.now() > giveUpAt) return false
      await sleep(LOOK_EVERY_MS)
    }
    return true
  }

  async close(): Promise<void> {
    this.#closed.abort()
    await this.#round
  }
}
