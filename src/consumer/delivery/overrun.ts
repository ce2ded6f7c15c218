import type { LogFields, Logger } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { ConsumerSettings } from '../settings.ts'

/** What is said of a handler that outran its timeout: once when it does, and once more if it ends after all. */
export class Overrun {
  readonly #settings: ConsumerSettings
  readonly #logger: Logger

  constructor(settings: ConsumerSettings, logger: Logger) {
    this.#settings = settings
    this.#logger = logger
  }

  /** Logs the overrun and returns the error that stands for it. */
  report(place: LogFields): PosthornError {
    const { subscription, timeoutMs } = this.#settings
    const error = new PosthornError('POSTHORN_HANDLER_TIMEOUT', { subscription, timeoutMs })
    this.#warn(error.message, { code: error.code, ...place })
    return error
  }

  reportEnd(place: LogFields, durationMs: number): void {
    this.#warn('A handler ended after it had been given up; its outcome has no effect.', { ...place, durationMs })
  }

  #warn(message: string, fields: LogFields): void {
    const { topic, subscription } = this.#settings
    this.#logger.warn(message, { topic, subscription, ...fields })
  }
}
