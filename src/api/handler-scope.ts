/**
 * Knows what the present call is part of: of nothing of ours, of a handler of this connection, or of a transactional
 * one whose transaction is open. What a handler calls inherits it, however long it takes.
 *
 * State: how many transactions are open, so that publishing looks no further while there is none. A scope is left by
 * its transaction when the handler ends: timers and promises that outlive the handler are then part of a plain one.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

interface Scope {
  transacting: boolean
}

export class HandlerScope {
  readonly #storage = new AsyncLocalStorage<Scope>()
  #transactions = 0

  get inHandler(): boolean {
    return this.#storage.getStore() !== undefined
  }

  get inTransaction(): boolean {
    return this.#transactions > 0 && this.#storage.getStore()?.transacting === true
  }

  /** Everything that `work` sets going is part of a handler: its promises and timers, and what those call. */
  run<Result>(work: () => Result): Result {
    return this.#storage.run({ transacting: false }, work)
  }

  async runTransaction(work: () => unknown): Promise<void> {
    const scope = { transacting: true }
    this.#transactions++
    try {
      await this.#storage.run(scope, work)
    } finally {
      scope.transacting = false
      this.#transactions--
    }
  }
}
