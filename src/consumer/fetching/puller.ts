/**
 * Fetches messages ahead of the handlers. At most one `pull` is under way; while it is, handlers go on with what is
 * buffered. `poke` is called whenever a handler took something, and asks the engine again once the buffer is low.
 *
 * States: idle; pulling; pausing (the engine failed: 100 ms, doubling to 5 s, for ever); stopped, which is final: when
 * told to, or by itself once the engine says that the subscription does not exist any more.
 * Nothing is fetched while too many finished messages wait to be recorded, or too many bytes wait to be started: all of
 * them are kept in memory.
 */
import type { Grant, Source } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { Outage } from '../outage.ts'
import { lookAhead, messagesWanted, type Pace, refillBelow } from './prefetch.ts'

const UNRECORDED_MAX = 10_000
const PULL_BYTES_MAX = 4 * 1024 * 1024

// A source that answers with nothing though nobody asked it to stop is not asked again at once.
const EMPTY_PAUSE_MS = 100

/** What the puller goes by. */
export interface Demand {
  pace(): Pace
  /** Handler calls under way. */
  running(): number
  /** Messages that were fetched and not started. */
  buffered(): number
  /** Messages that were fetched besides these, and cannot be started for a reason that others may not have. */
  blocked(): number
  /** Whether these are as many bytes as may be held. */
  full(): boolean
  /** Messages that finished and are not recorded. */
  unrecorded(): number
}

export interface PullerEvents {
  onGrants(grants: readonly Grant[]): void
  /** The subscription was deleted: nothing is fetched any more. */
  onGone(error: PosthornError): void
}

export class Puller {
  /** Pulls begun so far: one after the other. */
  begun = 0
  readonly #source: Source
  readonly #clock: Clock
  readonly #outage: Outage
  readonly #demand: Demand
  readonly #events: PullerEvents
  readonly #stop = new AbortController()
  #lastPulled = 0
  #refillBelow = 1
  #active = false
  #ended: Promise<void> = Promise.resolve()

  constructor(source: Source, clock: Clock, outage: Outage, demand: Demand, events: PullerEvents) {
    this.#source = source
    this.#clock = clock
    this.#outage = outage
    this.#demand = demand
    this.#events = events
  }

  /** Fetches more if there is room. Cheap: called for every message that is started. */
  poke(): void {
    if (this.#active || !this.#wanting()) return
    this.#active = true
    this.#ended = this.#run()
  }

  /** Resolves once no pull is under way and none will be. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }

  #wanting(): boolean {
    const demand = this.#demand
    if (demand.buffered() >= this.#refillBelow || demand.full()) return false
    return demand.unrecorded() <= UNRECORDED_MAX && !this.#stop.signal.aborted
  }

  async #run(): Promise<void> {
    while (this.#wanting()) {
      const grants = await this.#pull()
      this.#adapt(messagesIn(grants))
      if (grants.length > 0) this.#events.onGrants(grants)
    }
    this.#active = false
  }

  async #pull(): Promise<readonly Grant[]> {
    // The handlers' pace may have changed since the last pull.
    this.#adapt(this.#lastPulled)
    if (!this.#wanting()) return []
    const demand = this.#demand
    const wanted = messagesWanted(demand.pace(), demand.running(), demand.buffered())
    const messagesMax = Math.max(wanted, lookAhead(demand.blocked()))
    const limits = { messagesMax, bytesMax: PULL_BYTES_MAX }
    this.begun++
    try {
      const grants = await this.#source.pull(limits, this.#stop.signal)
      this.#outage.ended()
      if (grants.length === 0) await pause(this.#clock, EMPTY_PAUSE_MS, this.#stop.signal)
      return grants
    } catch (error) {
      if (isGone(error)) this.#gone(error)
      if (!this.#stop.signal.aborted) await pause(this.#clock, this.#outage.failed(error), this.#stop.signal)
      return []
    }
  }

  #gone(error: PosthornError): void {
    this.#stop.abort()
    this.#events.onGone(error)
  }

  #adapt(lastPulled: number): void {
    this.#lastPulled = lastPulled
    this.#refillBelow = refillBelow(this.#demand.pace(), lastPulled)
  }
}

function isGone(error: unknown): error is PosthornError {
  return error instanceof PosthornError && error.code === 'POSTHORN_SUBSCRIPTION_NOT_FOUND'
}

function messagesIn(grants: readonly Grant[]): number {
  return grants.reduce((count, grant) => count + grant.messages.length, 0)
}
