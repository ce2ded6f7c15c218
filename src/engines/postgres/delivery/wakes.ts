import type { Clock, Timer } from '../../../environment/index.ts'

/** A pull that has found nothing. */
interface Wait {
  readonly topicId: number
  readonly subscriptionId: number
  readonly wake: () => void
}

/** Pulls that wait until there may be something for them. What comes while a pull still looks is not missed. */
export class Wakes {
  readonly #clock: Clock
  readonly #waits = new Set<Wait>()
  /** Rises with each wake, of all, of a topic (`t1`) and of a subscription (`s1`). */
  readonly #counts = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** To be taken before looking, and given to `wait`. */
  mark(topicId: number, subscriptionId: number): number {
    return this.#count('all') + this.#count(`t${topicId}`) + this.#count(`s${subscriptionId}`)
  }

  /** Resolves when there was a wake since the mark, when the clock reaches `untilMs`, or when `signal` aborts. */
  wait(
    { topicId, subscriptionId }: { topicId: number; subscriptionId: number },
    mark: number,
    untilMs: number,
    signal: AbortSignal,
  ): Promise<void> {
    if (signal.aborted || mark !== this.mark(topicId, subscriptionId)) return Promise.resolve()
    return new Promise((resolve) => {
      let timer: Timer | undefined
      const finish = () => {
        this.#waits.delete(wait)
        timer?.cancel()
        signal.removeEventListener('abort', finish)
        resolve()
      }
      const wait: Wait = { topicId, subscriptionId, wake: finish }
      this.#waits.add(wait)
      timer = this.#clock.setTimer(Math.max(0, untilMs - this.#clock.now()), finish)
      signal.addEventListener('abort', finish)
    })
  }

  topic(topicId: number): void {
    this.#note(`t${topicId}`)
    for (const wait of [...this.#waits]) if (wait.topicId === topicId) wait.wake()
  }

  subscription(subscriptionId: number): void {
    this.#note(`s${subscriptionId}`)
    for (const wait of [...this.#waits]) if (wait.subscriptionId === subscriptionId) wait.wake()
  }

  all(): void {
    this.#note('all')
    for (const wait of [...this.#waits]) wait.wake()
  }

  #count(name: string): number {
    return this.#counts.get(name) ?? 0
  }

  #note(name: string): void {
    this.#counts.set(name, this.#count(name) + 1)
  }
}
