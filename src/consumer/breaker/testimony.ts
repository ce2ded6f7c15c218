import { Discard } from '../outcomes.ts'
import { isInstance } from '../settlement/failure.ts'
import { InvalidEvent } from '../settlement/verdict.ts'
import type { Evidence } from './circuit.ts'
import type { KeptFailure } from './undecided.ts'

/** What the end of one run tells about the downstream, gathered from what became of its messages. */
export class Testimony {
  /** A failure was none of the downstream's, so it answered. */
  answered = false
  /** Outages of messages of which it is not known that the downstream works for others. */
  outages = 0
  repeated = 0
  /** The first outage; undefined: there was none. */
  reason: unknown = undefined
  /** The longest that was asked for. */
  retryAfterMs = 0
  /** What is not settled yet. */
  readonly kept: KeptFailure[] = []
  readonly #isOutage: (thrown: unknown) => boolean
  #last: { readonly thrown: unknown; readonly isOutage: boolean } | undefined

  constructor(isOutage: (thrown: unknown) => boolean) {
    this.#isOutage = isOutage
  }

  /** Takes note of a failure. Says whether it is an outage. */
  hear(thrown: unknown): boolean {
    // The handler was not called with it.
    if (isInstance(thrown, InvalidEvent)) return false
    const isOutage = this.#classify(thrown)
    if (!isOutage) this.answered = true
    else this.reason ??= thrown ?? String(thrown)
    return isOutage
  }

  /** `succeeded`: a message did not fail. */
  evidence(succeeded: boolean): Evidence {
    if (succeeded || this.answered) return 'alive'
    if (this.outages > 0) return 'outage'
    return this.repeated > 0 ? 'repeated' : 'none'
  }

  // The messages of a batch fail with one and the same error.
  #classify(thrown: unknown): boolean {
    if (this.#last === undefined || this.#last.thrown !== thrown) {
      this.#last = { thrown, isOutage: !isInstance(thrown, Discard) && this.#isOutage(thrown) }
    }
    return this.#last.isOutage
  }
}
