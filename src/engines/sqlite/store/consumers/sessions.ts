import { hostname } from 'node:os'
import type { ConsumerState, SubscriptionRef } from '../../../../engine.ts'
import { DELETE_PLACES_OF_SESSION, DELETE_PLACES_OF_SOURCE } from '../../sql/admission.ts'
import * as sql from '../../sql/sessions.ts'
import type { Recall } from '../delivery/recall.ts'
import type { Statements } from '../file/connection.ts'
import type { Ownership } from '../order/ownership.ts'

interface SessionRow {
  readonly sessionId: number
  readonly host: string
  readonly pid: number
  readonly startedAtMs: number
  readonly leaseUntilMs: number
}

/** Processes that consume, and the time until which their leases hold. */
export class Sessions {
  readonly #statements: Statements
  readonly #recall: Recall
  readonly #ownership: Ownership

  constructor(statements: Statements, recall: Recall, ownership: Ownership) {
    this.#statements = statements
    this.#recall = recall
    this.#ownership = ownership
  }

  start(nowMs: number, leaseMs: number): number {
    return Number(
      this.#statements.run(sql.INSERT_SESSION, hostname(), process.pid, nowMs, nowMs + leaseMs).lastInsertRowid,
    )
  }

  /** Returns whether the session was still there to be renewed. */
  renew(sessionId: number, leaseUntilMs: number): boolean {
    return Number(this.#statements.run(sql.RENEW_SESSION, leaseUntilMs, sessionId).changes) > 0
  }

  exists(sessionId: number): boolean {
    return this.#statements.get(sql.FIND_SESSION, sessionId) !== undefined
  }

  /** Sessions other than `own` whose time is up. */
  lost(nowMs: number, own: number): number[] {
    return this.#statements.all<{ sessionId: number }>(sql.LOST_SESSIONS, nowMs, own).map((row) => row.sessionId)
  }

  /** When the next of the other sessions runs out, unless it is renewed. */
  nextLossMs(own: number): number | undefined {
    return this.#statements.get<{ atMs: number | null }>(sql.NEXT_LOSS, own)?.atMs ?? undefined
  }

  isLost(sessionId: number, nowMs: number): boolean {
    return this.#statements.get(sql.IS_LOST, sessionId, nowMs) !== undefined
  }

  /** Ends a session that died: what it held is deliverable again, and its crash is counted. */
  giveUp(sessionId: number, nowMs: number): void {
    this.#recall.fromLostSession(
      sessionId,
      (subscriptionId) => this.#statements.get(sql.LIMITS_OF_SUBSCRIPTION, subscriptionId),
      nowMs,
    )
    this.end(sessionId)
  }

  end(sessionId: number): void {
    this.#ownership.disownSession(sessionId)
    this.#statements.run(sql.DELETE_SESSION_SUBSCRIPTIONS, sessionId)
    this.#statements.run(DELETE_PLACES_OF_SESSION, sessionId)
    this.#statements.run(sql.DELETE_SESSION, sessionId)
  }

  /** `source` tells the session's sources apart. */
  addSource(sessionId: number, source: number, subscriptionId: number): void {
    this.#statements.run(sql.ADD_SESSION_SUBSCRIPTION, sessionId, source, subscriptionId)
  }

  removeSource(sessionId: number, source: number): void {
    this.#statements.run(sql.REMOVE_SESSION_SUBSCRIPTION, sessionId, source)
    this.#statements.run(DELETE_PLACES_OF_SOURCE, sessionId, source)
    this.#ownership.disownSource(sessionId, source)
  }

  list(): ConsumerState[] {
    return this.#statements.all<SessionRow>(sql.LIST_SESSIONS).map(({ sessionId, ...row }) => ({
      ...row,
      id: String(sessionId),
      subscriptions: this.#statements.all<SubscriptionRef>(sql.SUBSCRIPTIONS_OF_SESSION, sessionId),
    }))
  }
}
