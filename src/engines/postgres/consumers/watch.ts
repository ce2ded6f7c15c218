/**
 * Looks for sessions that died, three times within the shortest lease, and gives them up. When it fails, it looks again a
 * little later; that it failed is said once a minute.
 */
import { type Clock, OnceAMinute } from '../../../environment/index.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/sessions.ts'
import type { Losses } from './losses.ts'
import { Observer, type SessionRow } from './observer.ts'
import { RENEWALS_PER_LEASE } from './renewer.ts'
import { Rounds } from './rounds.ts'

/** One look in so many is for sources whose session is not stored at all. */
const LOOKS_PER_ORPHANS = 3
const CONFIRMATIONS = 3
const CONFIRMED_AFTER_SECONDS = 0.03

export interface WatchOptions {
  readonly rows: Queryable
  readonly clock: Clock
  readonly losses: Losses
  readonly leaseMs: number
  /** Of this process, which does not give up itself. */
  ownSession(): string
  /** Of these subscriptions, there is something to be granted again. */
  onGivenUp(subscriptionIds: readonly number[]): void
  /** It is tried again. */
  onTrouble(error: Error): void
}

export class Watch {
  readonly #options: WatchOptions
  readonly #observer: Observer
  readonly #rounds: Rounds
  readonly #warning: OnceAMinute
  #orphans: ReadonlySet<string> = new Set()
  #looks = 0

  constructor(options: WatchOptions) {
    this.#options = options
    this.#observer = new Observer(options.clock.real)
    this.#warning = new OnceAMinute(options.clock)
    this.#rounds = new Rounds(options.clock, () => this.#round())
  }

  /** Resolves after the first look. */
  start(): Promise<void> {
    this.#rounds.start(this.#options.leaseMs / RENEWALS_PER_LEASE)
    return this.#rounds.now()
  }

  /** Resolves when nothing is under way that the clock has brought about. */
  idle(): Promise<void> {
    return this.#rounds.idle()
  }

  stop(): Promise<void> {
    return this.#rounds.stop()
  }

  async #round(): Promise<number> {
    const { leaseMs, onTrouble } = this.#options
    try {
      const shortestMs = await this.#look()
      if (this.#looks++ % LOOKS_PER_ORPHANS === 0) await this.#lookForOrphans()
      return Math.min(leaseMs, shortestMs) / RENEWALS_PER_LEASE
    } catch (error) {
      if (this.#warning.isDue()) onTrouble(error as Error)
      return leaseMs / RENEWALS_PER_LEASE
    }
  }

  /** Returns the shortest lease. */
  async #look(): Promise<number> {
    const { rows, clock, losses, ownSession } = this.#options
    const sentAtMs = clock.elapsedMs()
    const sessions = await rows.rows<SessionRow>(sql.sessions.look)
    const times = { sentAtMs, answeredAtMs: clock.elapsedMs(), nowMs: clock.now() }
    const others = sessions.filter(({ sessionId }) => sessionId !== ownSession())
    const dead = this.#observer.look(others, times)
    for (const { sessionId, beat } of clock.real ? dead : await this.#confirmed(dead)) {
      this.#report(await losses.giveUp(sessionId, beat))
    }
    return Math.min(...sessions.map(({ leaseMs }) => leaseMs))
  }

  /** Hours of held time can pass in a moment, while a renewal that was sent in time is still on its way. */
  async #confirmed(dead: readonly SessionRow[]): Promise<readonly SessionRow[]> {
    const { rows } = this.#options
    let left = dead
    for (let looks = 0; looks < CONFIRMATIONS && left.length > 0; looks++) {
      await rows.rows(sql.sessions.pause, CONFIRMED_AFTER_SECONDS)
      const sessions = await rows.rows<SessionRow>(sql.sessions.look)
      left = left.filter(({ sessionId, beat }) =>
        sessions.some((row) => row.sessionId === sessionId && row.beat === beat),
      )
    }
    return left
  }

  /** What is found twice is no session that was just ending. */
  async #lookForOrphans(): Promise<void> {
    const { rows, losses } = this.#options
    const found = await rows.rows<{ sessionId: string }>(sql.sessions.orphaned)
    for (const { sessionId } of found) {
      if (this.#orphans.has(sessionId)) this.#report(await losses.giveUpOrphan(sessionId))
    }
    this.#orphans = new Set(found.map(({ sessionId }) => sessionId))
  }

  #report(subscriptionIds: readonly number[]): void {
    if (subscriptionIds.length > 0) this.#options.onGivenUp(subscriptionIds)
  }
}
