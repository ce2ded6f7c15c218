import type { Clock } from '../../environment/index.ts'
import type { Topic } from './topic.ts'

interface Wait {
  readonly topic: Topic
  readonly wake: () => void
}

/** Pulls that found nothing, until there may be something. */
export class Waiters {
  readonly #waits = new Set<Wait>()

  /** Resolves when the topic changes, when the clock reaches `untilMs`, or when `signal` aborts. */
  wait(topic: Topic, clock: Clock, untilMs: number | undefined, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const finish = () => {
        this.#waits.delete(wait)
        timer?.cancel()
        signal.removeEventListener('abort', finish)
        resolve()
      }
      const wait: Wait = { topic, wake: finish }
      const timer = untilMs === undefined ? undefined : clock.setTimer(untilMs - clock.now(), finish)
      this.#waits.add(wait)
      signal.addEventListener('abort', finish)
    })
  }

  wake(topic: Topic): void {
    for (const wait of [...this.#waits]) if (wait.topic === topic) wait.wake()
  }

  wakeAll(): void {
    for (const wait of [...this.#waits]) wait.wake()
  }
}
