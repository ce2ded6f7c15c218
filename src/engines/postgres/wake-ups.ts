import type { Listener } from './database/listener.ts'
import type { Wakes } from './delivery/wakes.ts'

/** What a notice says: messages of a topic, or a change of a subscription's deliveries. */
type Subject = `t${number}` | `s${number}`

/**
 * Wakes the pulls of this process at once, and those of others by a notice. A notice is no more than a hint: what is
 * missed is found by looking.
 */
export class WakeUps {
  readonly #wakes: Wakes
  readonly #listener: Listener | undefined
  readonly #onSubscription: (subscriptionId: number) => void

  /** Without a listener nobody else is told. */
  constructor(wakes: Wakes, listener: Listener | undefined, onSubscription: (subscriptionId: number) => void) {
    this.#wakes = wakes
    this.#listener = listener
    this.#onSubscription = onSubscription
  }

  topic(topicId: number): void {
    this.#tell(`t${topicId}`)
  }

  subscription(subscriptionId: number): void {
    this.#tell(`s${subscriptionId}`)
  }

  /** Somebody else has told of it. */
  heard(notice: string): void {
    const id = Number(notice.slice(1))
    if (notice.startsWith('t')) this.#wakes.topic(id)
    else if (notice.startsWith('s')) {
      this.#wakes.subscription(id)
      this.#onSubscription(id)
    }
  }

  #tell(subject: Subject): void {
    this.heard(subject)
    this.#listener?.notify(subject)
  }
}
