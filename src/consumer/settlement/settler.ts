/**
 * Tells the engine what became of deliveries. Group commit: what finishes while one `settle` call is under way goes
 * with the next, and what finishes within one turn of the event loop goes together. Nothing lingers beyond that.
 *
 * States: idle; scheduled (something finished in this turn); sending; pausing (the engine failed, and is asked again
 * after 100 ms, doubling to 5 s). A failed call has recorded nothing, so everything that it carried becomes unsent
 * again and goes with the next one. `waiting` counts the messages that finished and are not recorded, for the puller
 * to stop taking more; a lease that is lost takes its share of it along.
 *
 * All that finished goes with one call, so what is told within one turn is recorded together. With `inOrder`, grants of
 * a partition are told of in the order of their messages.
 */
import type { LeaseId, Settlement, Source } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import type { Outage } from '../outage.ts'
import type { GrantLedger } from './grant-ledger.ts'

export interface SettlerEvents {
  /** The engine has recorded this grant's last message. */
  onComplete(ledger: GrantLedger): void
  /** These leases had been lost already: nothing was recorded for them. */
  onFenced(leases: readonly LeaseId[]): void
  /** A call returned. */
  onSettled(): void
}

export class Settler {
  /** Messages that finished and are not recorded. */
  waiting = 0
  readonly #source: Source
  readonly #clock: Clock
  readonly #events: SettlerEvents
  readonly #outage: Outage
  readonly #inOrder: boolean
  #listed: GrantLedger[] = []
  #active = false
  #stopped = false
  #sending: readonly GrantLedger[] = []
  #hurry = new AbortController()
  #idle: (() => void)[] = []

  constructor(source: Source, clock: Clock, outage: Outage, events: SettlerEvents, inOrder = false) {
    this.#source = source
    this.#clock = clock
    this.#outage = outage
    this.#events = events
    this.#inOrder = inOrder
  }

  /** One more message of `ledger` has finished. */
  finished(ledger: GrantLedger): void {
    this.waiting++
    this.tell(ledger)
  }

  /** `ledger` has something to say, if only of keys. */
  tell(ledger: GrantLedger): void {
    if (ledger.listed) return
    ledger.listed = true
    this.#listed.push(ledger)
    if (!this.#active) this.#schedule()
  }

  /** The lease of `ledger` is lost: nothing that finished under it will be recorded. */
  forget(ledger: GrantLedger): void {
    this.waiting -= ledger.unrecorded
    this.#listed = this.#listed.filter((other) => other !== ledger)
    this.#sending = this.#sending.filter((other) => other !== ledger)
  }

  /** Resolves once everything that finished is recorded. Ends a pause at once. */
  flush(): Promise<void> {
    this.#hurry.abort()
    return new Promise((resolve) => {
      if (this.#active) this.#idle.push(resolve)
      else resolve()
    })
  }

  /** Gives up what is not recorded: nothing is sent any more. */
  stop(): void {
    this.#stopped = true
    this.#hurry.abort()
  }

  #schedule(): void {
    this.#active = true
    setImmediate(() => void this.#run())
  }

  async #run(): Promise<void> {
    await this.#send()
    this.#active = false
    if (this.#listed.length > 0 && !this.#stopped) return this.#schedule()
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  async #send(): Promise<void> {
    this.#sending = this.#inOrder ? this.#listed.toSorted(byFirstOffset) : this.#listed
    this.#listed = []
    const settlements = this.#sending.map(takeFrom)
    if (settlements.length === 0) return
    const fenced = await this.#settle(settlements)
    if (fenced !== undefined) this.#recorded(fenced)
  }

  async #settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[] | undefined> {
    try {
      return await this.#source.settle(settlements)
    } catch (error) {
      await this.#failed(error)
      return undefined
    }
  }

  #recorded(fenced: readonly LeaseId[]): void {
    this.#outage.ended()
    if (fenced.length > 0) this.#events.onFenced(fenced)
    const ledgers = this.#sending
    this.#sending = []
    for (const ledger of ledgers) {
      const before = ledger.unrecorded
      ledger.confirm()
      this.waiting -= before - ledger.unrecorded
      if (ledger.complete) this.#events.onComplete(ledger)
    }
    this.#events.onSettled()
  }

  async #failed(error: unknown): Promise<void> {
    for (const ledger of this.#sending) {
      ledger.restore()
      if (!ledger.listed) this.#listed.push(ledger)
      ledger.listed = true
    }
    this.#sending = []
    const delayMs = this.#outage.failed(error)
    const hurry = this.#hurry.signal
    await pause(this.#clock, delayMs, hurry)
    if (hurry.aborted) this.#hurry = new AbortController()
  }
}

function byFirstOffset(one: GrantLedger, other: GrantLedger): number {
  return one.message(0).offset - other.message(0).offset
}

function takeFrom(ledger: GrantLedger): Settlement {
  ledger.listed = false
  return ledger.take()
}
