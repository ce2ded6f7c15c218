import { BoxMap } from '../../collections/box-map.ts'
import { PosthornError } from '../../errors.ts'
import type { CallResult } from './protocol.ts'
import { fromWire } from './wire-error.ts'

interface PendingCall {
  /** It stores messages: when nobody answers, it matters whether it did. */
  readonly stores: boolean
  resolve(value: never): void
  reject(error: unknown): void
}

/** The calls that wait for the thread's answer, by number. */
export class PendingCalls {
  readonly #calls = new BoxMap<number, PendingCall>()
  #next = 1

  get size(): number {
    return this.#calls.size
  }

  /** Returns the number that the answer will have. */
  add(call: PendingCall): number {
    const number = this.#next++
    this.#calls.set(number, call)
    return number
  }

  answer(result: CallResult): void {
    const waiting = this.#calls.take(result.call)
    if ('error' in result) waiting?.reject(fromWire(result.error))
    else waiting?.resolve(result.value as never)
  }

  /** `announced`: what is not answered was not carried out. */
  rejectAll(failure: PosthornError, store: string, announced: boolean): void {
    const { message: problem } = failure
    const unknown = new PosthornError('POSTHORN_OUTCOME_UNKNOWN', { store, problem }, { cause: failure })
    for (const { stores, reject } of this.#calls.takeAll()) reject(stores && !announced ? unknown : failure)
  }
}
