/**
 * The connection on which transactional handlers work, on the event loop: the user's side is the `DatabaseSync`, ours
 * the parts of the store that an acknowledgement needs.
 *
 * States: idle, and in a transaction between `begin` and `commit` or `rollBack`. A transaction holds the file's write
 * lock from its beginning, so that what it finds out about leases holds until its end. A savepoint tells whether the
 * handler ended the transaction itself, even if it began another one.
 */
import { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { LeaseId } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { SqliteAddress } from './address.ts'
import { PROLONG_SESSIONS } from './sql/sessions.ts'
import { findHeld, type HeldMessage } from './store/delivery/held-message.ts'
import type { SourceRow } from './store/delivery/leases.ts'
import { configureCommits, limitBytes, StatementCache } from './store/file/connection.ts'
import { BUSY_LIMIT_MS, isBusy } from './store/file/failure.ts'
import { type SettlementParts, settlementParts } from './store/settlement/parts.ts'
import type { SettleOutcome } from './store/settlement/settling.ts'

/** Our own transactions last for a fraction of a millisecond, which is not worth a timer; whoever is not done then is. */
const SPIN_MS = 0.05
const SPINS_MAX = 20
const SPINS_LATER = 2
const PAUSE_MS_MAX = 10

const spinCell = new Int32Array(new SharedArrayBuffer(4))

export class HandlerConnection {
  readonly database: DatabaseSync
  readonly #statements: StatementCache
  readonly #parts: SettlementParts

  constructor({ file, maxBytes }: SqliteAddress) {
    this.database = new DatabaseSync(existing(file), { timeout: 0 })
    try {
      configureCommits(this.database)
      if (maxBytes !== undefined) limitBytes(this.database, maxBytes)
    } catch (error) {
      this.database.close()
      throw error
    }
    this.#statements = new StatementCache((sql) => this.database.prepare(sql))
    this.#parts = settlementParts(this.#statements)
  }

  get isOpen(): boolean {
    return this.database.isOpen
  }

  begin(): void {
    this.#statements.run('BEGIN IMMEDIATE')
  }

  find(lease: LeaseId, sessionId: number, offset: number): HeldMessage | undefined {
    return findHeld(this.#parts.leases, this.#parts.exceptions, lease, sessionId, offset)
  }

  /** From here to `endWork`, the connection is the handler's. */
  beginWork(): void {
    this.#statements.run('SAVEPOINT posthorn_handler')
  }

  /** Throws POSTHORN_INVALID_TRANSACTION when the handler has ended the transaction. */
  endWork(): void {
    try {
      this.#statements.run('RELEASE posthorn_handler')
    } catch (cause) {
      const problem = 'the handler ended the transaction that it was given, and what it wrote may be stored'
      throw new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem }, { cause })
    }
  }

  acknowledge(source: SourceRow, sessionId: number, lease: LeaseId, held: HeldMessage, nowMs: number): SettleOutcome {
    const { subscriptionId, partition, offset } = held
    this.#parts.steps.forget(subscriptionId, partition, [offset])
    return this.#parts.settling.settle(source, sessionId, { lease, acked: [offset, offset + 1], exceptions: [] }, nowMs)
  }

  /** Lets no session run out before `untilMs`. */
  prolongSessions(untilMs: number): void {
    this.#statements.run(PROLONG_SESSIONS, untilMs)
  }

  commit(): void {
    this.#statements.run('COMMIT')
  }

  /** Whatever state the handler left it in. */
  rollBack(): void {
    // SQLite has rolled back by itself after some failures, such as a full disk.
    if (this.database.isOpen && this.database.isTransaction) this.#statements.run('ROLLBACK')
  }

  close(): void {
    if (this.database.isOpen) this.database.close()
  }
}

// If somebody has removed the file, no other is to be made in its place.
function existing(file: string): URL {
  const url = pathToFileURL(file)
  url.search = '?mode=rw'
  return url
}

/**
 * Runs `attempt` until another connection's lock no longer stops it, or throws SQLite's own error after
 * `BUSY_LIMIT_MS`. The event loop is held up for a millisecond at most, and goes on in between.
 */
export async function retryWhileBusy<T>(clock: Clock, attempt: () => T): Promise<T> {
  let pauseMs = 1
  for (let waitedMs = 0; ; waitedMs += pauseMs) {
    const spins = waitedMs === 0 ? SPINS_MAX : SPINS_LATER
    for (let spin = 0; spin < spins; spin++) {
      try {
        return attempt()
      } catch (error) {
        if (!isBusy(error) || waitedMs >= BUSY_LIMIT_MS) throw error
        Atomics.wait(spinCell, 0, 0, SPIN_MS)
      }
    }
    // Held time does not pass by waiting.
    if (clock.real) await pause(clock, pauseMs)
    else await setImmediate()
    pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
  }
}
