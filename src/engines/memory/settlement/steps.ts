import { STEP_PROBLEM } from '../../step-problem.ts'
import type { MessagePlace } from '../subscription.ts'

type Results = Map<string, string>

/**
 * The results of finished steps of a subscription's messages, as JSON by name. They go when their message is
 * acknowledged; what is left behind otherwise (by a seek, or by what retention deletes) goes with `sweep`.
 */
export class Steps {
  readonly #partitions = new Map<number, Map<number, Results>>()

  of({ partition, offset }: MessagePlace): Results {
    return new Map(this.#partitions.get(partition)?.get(offset))
  }

  record({ partition, offset }: MessagePlace, name: string, result: string): void {
    const messages = this.#partitions.get(partition) ?? new Map<number, Results>()
    const results = messages.get(offset) ?? new Map<string, string>()
    this.#partitions.set(partition, messages.set(offset, results.set(name, result)))
  }

  forget({ partition, offset }: MessagePlace): void {
    this.#partitions.get(partition)?.delete(offset)
  }

  /** Forgets what says why there is no result. */
  forgetProblems({ partition, offset }: MessagePlace): void {
    const results = this.#partitions.get(partition)?.get(offset)
    for (const [name, result] of results ?? []) if (result.startsWith(STEP_PROBLEM)) results?.delete(name)
  }

  /** Forgets those of all messages that are not to be kept. */
  sweep(isKept: (place: MessagePlace) => boolean): void {
    for (const [partition, messages] of this.#partitions) {
      for (const offset of messages.keys()) if (!isKept({ partition, offset })) messages.delete(offset)
    }
  }
}
