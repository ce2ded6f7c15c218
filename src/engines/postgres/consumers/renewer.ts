import type { Clock } from '../../../environment/index.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/sessions.ts'
import { BEAT_MS, type Life } from './life.ts'
import { Rounds } from './rounds.ts'

export const RENEWALS_PER_LEASE = 3
const RETRY_MS_MAX = 1_000
const RETRIES_PER_LEASE = 10

export interface RenewalListener {
  /** The session is not stored any more. Said again until another one, or none, is to be kept. */
  onLost(sessionId: string): Promise<void> | void
  /** It could not be renewed, and is tried again. */
  onTrouble(error: Error): void
}

/** Keeps a session alive. */
export interface Renewal {
  /** From now on this one, which has just been stored; or none. */
  keep(sessionId: string | undefined): void
  /** Resolves when nothing is under way that the clock has brought about. */
  idle(): Promise<void>
  end(): Promise<void>
  /** At once, as the death of the process would. */
  kill(): Promise<void>
}

/** Renews a session three times within each lease, by the clock of the thread that it runs in. */
export class Renewer implements Renewal {
  readonly #clock: Clock
  readonly #rows: Queryable
  readonly #life: Life
  readonly #leaseMs: number
  readonly #listener: RenewalListener
  readonly #rounds: Rounds
  #sessionId: string | undefined

  constructor(rows: Queryable, clock: Clock, life: Life, leaseMs: number, listener: RenewalListener) {
    this.#rows = rows
    this.#clock = clock
    this.#life = life
    this.#leaseMs = leaseMs
    this.#listener = listener
    this.#rounds = new Rounds(clock, () => this.#round())
  }

  keep(sessionId: string | undefined): void {
    if (this.#sessionId === undefined) this.#rounds.start(this.#leaseMs / RENEWALS_PER_LEASE)
    this.#sessionId = sessionId
  }

  idle(): Promise<void> {
    return this.#rounds.idle()
  }

  end(): Promise<void> {
    return this.#rounds.stop()
  }

  kill(): Promise<void> {
    return this.#rounds.stop()
  }

  async #round(): Promise<number> {
    const sessionId = this.#sessionId
    const everyMs = this.#leaseMs / RENEWALS_PER_LEASE
    if (sessionId === undefined) return everyMs
    // Not renewed while the event loop seems dead: then the messages had better go to another process.
    if (this.#life.noteSilence() > 0) return Math.min(BEAT_MS, everyMs)
    const retryMs = Math.min(RETRY_MS_MAX, this.#leaseMs / RETRIES_PER_LEASE)
    try {
      const renewed = await this.#renew(sessionId)
      return renewed || this.#sessionId !== sessionId ? everyMs : retryMs
    } catch (error) {
      this.#listener.onTrouble(error as Error)
      return retryMs
    }
  }

  async #renew(sessionId: string): Promise<boolean> {
    const sent = { atMs: this.#clock.now(), elapsedMs: this.#clock.elapsedMs() }
    const isStored = (await this.#rows.run(sql.sessions.renew, sessionId, sent.atMs)) > 0
    if (this.#sessionId !== sessionId) return isStored
    if (isStored) this.#life.extend(sent, this.#leaseMs)
    else await this.#listener.onLost(sessionId)
    return isStored
  }
}
