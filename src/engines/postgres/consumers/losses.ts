/**
 * Takes back what a session had: its leases, the partitions that its sources owned, their places and breakers.
 *
 * One transaction does all of it, and deletes the session's row, which it locks after the subscriptions. A source is
 * enlisted only under a lock of the same row (`Session.isStored`), so that none can be added to a subscription that is
 * not among the locked ones. Whoever comes second finds nothing left to do.
 */

import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import type { Lease } from '../delivery/lease.ts'
import type { Turn, Turns } from '../delivery/turns.ts'
import * as breakers from '../sql/limits.ts'
import * as sql from '../sql/sessions.ts'
import { sessionOf } from './source-name.ts'

/** What becomes of leases that end unsettled. */
export interface LeaseEnding {
  /** Gives them back with a crash counted. */
  lose(turn: Turn, leases: readonly Lease[]): Promise<void>
  /** Gives them back with nothing counted. */
  release(turn: Turn, leases: readonly Lease[]): Promise<void>
}

/** Why: it was seen dead at this beat; it is not stored, though sources of it are enlisted; or it ends in good order. */
type Reason = { readonly beat: number } | 'orphaned' | 'closed'

interface Outcome {
  readonly subscriptionIds: readonly number[]
  /** A subscription was not among the locked ones. */
  readonly more: boolean
}

const NOTHING: Outcome = { subscriptionIds: [], more: false }

export class Losses {
  readonly #database: Database
  readonly #turns: Turns
  readonly #ending: LeaseEnding

  constructor(database: Database, turns: Turns, ending: LeaseEnding) {
    this.#database = database
    this.#turns = turns
    this.#ending = ending
  }

  /** Gives up a session, unless it has been renewed since. Returns the subscriptions that it had something of. */
  giveUp(sessionId: string, beat: number): Promise<readonly number[]> {
    return this.#takeBack(sessionId, { beat })
  }

  /** Gives up a session that is not stored, unless it is after all. */
  giveUpOrphan(sessionId: string): Promise<readonly number[]> {
    return this.#takeBack(sessionId, 'orphaned')
  }

  /** Ends this process's own session. */
  end(sessionId: string): Promise<readonly number[]> {
    return this.#takeBack(sessionId, 'closed')
  }

  async #takeBack(sessionId: string, reason: Reason): Promise<readonly number[]> {
    for (;;) {
      const ids = await subscriptionsOf(this.#database, sessionId)
      const { more, subscriptionIds } = await this.#turns.across(ids, (turns, rows) =>
        this.#takeFrom(turns, rows, sessionId, reason),
      )
      if (!more) return subscriptionIds
    }
  }

  async #takeFrom(turns: readonly Turn[], rows: Queryable, sessionId: string, reason: Reason): Promise<Outcome> {
    const [session] = await rows.rows<{ beat: number }>(sql.sessions.lock, sessionId)
    if (!applies(reason, session?.beat)) return NOTHING
    const locked = turns.map(({ subscription }) => subscription.subscriptionId)
    const named = await subscriptionsOf(rows, sessionId)
    if (named.some((id) => !locked.includes(id))) return { subscriptionIds: [], more: true }
    for (const turn of turns) await this.#forget(turn, sessionId, reason)
    await rows.run(breakers.breakers.closeOfSession, `${sessionId}/`)
    await rows.run(sql.sessions.end, sessionId)
    return { subscriptionIds: locked, more: false }
  }

  async #forget(turn: Turn, sessionId: string, reason: Reason): Promise<void> {
    const { state } = turn
    const isOfSession = (source: string) => sessionOf(source) === sessionId
    const leases = [...state.leases.values()].filter(({ source }) => isOfSession(source))
    await (reason === 'closed' ? this.#ending.release(turn, leases) : this.#ending.lose(turn, leases))
    state.sources = state.sources.filter((source) => !isOfSession(source))
    for (const [partition, { source }] of state.owners) if (isOfSession(source)) state.owners.delete(partition)
  }
}

function applies(reason: Reason, beat: number | undefined): boolean {
  if (reason === 'closed') return true
  return reason === 'orphaned' ? beat === undefined : beat === reason.beat
}

async function subscriptionsOf(rows: Queryable, sessionId: string): Promise<number[]> {
  const found = await rows.rows<{ subscriptionId: number }>(sql.sessions.subscriptionsOf, sessionId)
  return found.map(({ subscriptionId }) => subscriptionId)
}
