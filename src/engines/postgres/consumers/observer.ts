/** A session as it is stored. */
export interface SessionRow {
  readonly sessionId: string
  readonly beat: number
  readonly beatenAtMs: number
  readonly leaseMs: number
}

/** When it was looked, by `Clock.elapsedMs`, and the wall clock. */
export interface Look {
  readonly sentAtMs: number
  readonly answeredAtMs: number
  readonly nowMs: number
}

interface Watched {
  readonly beat: number
  /** For how long it has been seen not to change. */
  readonly silentMs: number
  readonly lookedAtMs: number
}

/**
 * How much of a lease one look can count as silence. Who was kept from looking, as everybody is while the server is
 * down, must not find everybody dead when he looks again.
 */
const SEEN_AT_ONCE = 1 / 2

/**
 * How much of a lease counts for a session that is seen for the first time, if its last renewal seems to be that long
 * ago. Clocks differ: so what is left must be time enough for one that lives to renew itself.
 */
const CREDIT = 1 / 2
const CREDIT_WITH_HELD_TIME = 1

/**
 * Tells which sessions are dead: those whose beat this process has seen standing still for as long as their lease. No two
 * clocks are compared but for that first look; nor is the server's asked, which may be another server tomorrow.
 */
export class Observer {
  readonly #credit: number
  #watched: ReadonlyMap<string, Watched> = new Map()

  /** `real`: of the clock. Where time is held, all clocks are one. */
  constructor(real: boolean) {
    this.#credit = real ? CREDIT : CREDIT_WITH_HELD_TIME
  }

  /** Takes down what was seen of all sessions, and returns the dead ones. */
  look(sessions: readonly SessionRow[], look: Look): SessionRow[] {
    const watched = new Map(sessions.map((session) => [session.sessionId, this.#watch(session, look)]))
    this.#watched = watched
    return sessions.filter(({ sessionId, leaseMs }) => watched.get(sessionId)!.silentMs >= leaseMs)
  }

  #watch({ sessionId, beat, beatenAtMs, leaseMs }: SessionRow, { sentAtMs, answeredAtMs, nowMs }: Look): Watched {
    const before = this.#watched.get(sessionId)
    const seen = { beat, lookedAtMs: answeredAtMs }
    if (!before) return { ...seen, silentMs: Math.min(Math.max(0, nowMs - beatenAtMs), leaseMs * this.#credit) }
    if (before.beat !== beat) return { ...seen, silentMs: 0 }
    const sinceMs = Math.max(0, sentAtMs - before.lookedAtMs)
    return { ...seen, silentMs: before.silentMs + Math.min(sinceMs, leaseMs * SEEN_AT_ONCE) }
  }
}
