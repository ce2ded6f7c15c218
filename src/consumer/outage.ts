import type { LogFields, Logger } from '../environment/index.ts'
import { outageDelayMs } from './retry-policy.ts'
import { failureOf } from './settlement/failure.ts'

/** Failures of an engine in a row: logged when they begin and when they are over, not each of them. */
export class Outage {
  readonly #logger: Logger
  readonly #what: string
  readonly #fields: LogFields
  #failures = 0

  /** `what` names what the engine fails at, in the words of a log message. */
  constructor(logger: Logger, what: string, fields: LogFields) {
    this.#logger = logger
    this.#what = what
    this.#fields = fields
  }

  /** Returns how long to wait before the next try, in milliseconds. */
  failed(error: unknown): number {
    this.#failures++
    if (this.#failures === 1) this.#log(error)
    return outageDelayMs(this.#failures)
  }

  ended(): void {
    if (this.#failures === 0) return
    this.#logger.info(`${this.#what} works again.`, { ...this.#fields, failures: this.#failures })
    this.#failures = 0
  }

  #log(error: unknown): void {
    const { code, message } = failureOf(error, 0, 0)
    const fields = { ...this.#fields, error: message, ...(code === undefined ? {} : { code }) }
    this.#logger.error(`${this.#what} failed; it is tried again until it succeeds.`, fields)
  }
}
