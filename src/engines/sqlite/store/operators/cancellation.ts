/**
 * Stopping single messages.
 *
 * A message is stopped wherever it is: a delayed one is deleted; in ranges it is settled; rows of its own are deleted,
 * and what waited behind them goes on. For subscriptions that have not reached it, it is written down as *cancelled*,
 * and granting passes over it, today's subscriptions and later ones alike. That is kept as long as the message itself.
 *
 * A session that holds the message is to be told. If it is another process's, a *notice* waits for it in the store until
 * its writer thread finds it, or the session ends.
 */
import type { CancelOutcome, LeaseId } from '../../../../engine.ts'
import * as sql from '../../sql/cancellation.ts'
import { bitsOf, type LeaseRow, type LeaseRows } from '../delivery/leases.ts'
import type { Statements } from '../file/connection.ts'
import type { Log, TopicRow } from '../log/log.ts'
import type { Retention } from '../log/retention.ts'
import type { Exceptions, RetryRow } from '../settlement/exceptions.ts'
import type { MessagePosition, MessageSearch, SearchProgress } from './message-search.ts'

/** That a message which a session holds was cancelled. */
export interface CancelNotice {
  readonly lease: LeaseId
  readonly partition: number
  readonly offset: number
  /** Nothing else was left of the lease, which is gone. */
  readonly ended: 0 | 1
}

/** `resume`: it is not found yet, and this is where to go on looking. */
export type CancelStep = { readonly outcome: CancelOutcome } | { readonly resume: SearchProgress }

interface Holder {
  readonly sessionId: number | null
}

interface Stopped {
  waiting: boolean
  readonly notices: (CancelNotice & { readonly sessionId: number })[]
}

const NOTHING: CancelOutcome = { delayed: 0, waiting: 0, running: 0 }

/** Messages of the log that are not to be granted. */
export class CancelledOffsets {
  readonly #statements: Statements

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** Offsets within [from, to) that are cancelled, rising. */
  cancelled(subscriptionId: number, partition: number, from: number, to: number): number[] {
    const rows = this.#statements.all<{ offset: number }>(sql.CANCELLED_OFFSETS, subscriptionId, partition, from, to)
    return rows.map((row) => row.offset)
  }

  /** `offset` is cancelled: the first one after it that is not. */
  endOfRun(subscriptionId: number, partition: number, offset: number): number {
    return this.#statements.get<{ end: number }>(sql.END_OF_CANCELLED_RUN, subscriptionId, partition, offset)!.end
  }
}

export class Cancellation {
  readonly #statements: Statements
  readonly #log: Log
  readonly #search: MessageSearch
  readonly #leases: LeaseRows
  readonly #exceptions: Exceptions
  readonly #retention: Retention

  constructor(
    statements: Statements,
    log: Log,
    search: MessageSearch,
    leases: LeaseRows,
    exceptions: Exceptions,
    retention: Retention,
  ) {
    this.#statements = statements
    this.#log = log
    this.#search = search
    this.#leases = leases
    this.#exceptions = exceptions
    this.#retention = retention
  }

  /** Stops a message. Returns with it the notices that are for the session `own`, which need not wait in the store. */
  cancel(
    nowMs: number,
    own: number,
    topicName: string,
    id: string,
    resume?: SearchProgress,
  ): { step: CancelStep; notices: readonly CancelNotice[] } {
    const topic = this.#log.topic(topicName)
    const delayed = resume ? 0 : Number(this.#statements.run(sql.DELETE_DELAYED_BY_ID, topic.topicId, id).changes)
    if (delayed > 0) return { step: { outcome: { ...NOTHING, delayed } }, notices: [] }
    const found = this.#search.find(topic, id, resume)
    if ('next' in found) return { step: { resume: found.next }, notices: [] }
    if (!found.position) return { step: { outcome: NOTHING }, notices: [] }
    return this.#stop(topic, found.position, own, nowMs)
  }

  noticesFor(sessionId: number): CancelNotice[] {
    return this.#statements.all<CancelNotice>(sql.NOTICES_OF_SESSION, sessionId)
  }

  deleteNotices(sessionId: number): void {
    this.#statements.run(sql.DELETE_NOTICES, sessionId)
  }

  /** The partition of a lease of which a notice waits that says that it ended. */
  endedIn(sessionId: number, lease: LeaseId): number | undefined {
    return this.#statements.get<{ partition: number }>(sql.FIND_END_NOTICE, sessionId, lease)?.partition
  }

  #stop(topic: TopicRow, position: MessagePosition, own: number, nowMs: number) {
    const { partition, offset } = position
    const cursors = this.#statements.all<{ subscriptionId: number; cursor: number }>(
      sql.CURSORS_OF_PARTITION,
      topic.topicId,
      partition,
    )
    const notices: CancelNotice[] = []
    // What nobody has subscribed to yet waits for the first who does.
    const isNew = this.#statements.get(sql.FIND_CANCELLED, topic.topicId, partition, offset) === undefined
    let waiting = cursors.length === 0 && isNew ? 1 : 0
    let running = 0
    for (const { subscriptionId, cursor } of cursors) {
      const stopped: Stopped = { waiting: isNew && offset >= cursor, notices: [] }
      this.#stopInRanges(subscriptionId, position, stopped)
      this.#stopRows(subscriptionId, position, stopped, nowMs)
      for (const { sessionId, ...notice } of stopped.notices) {
        if (sessionId === own) notices.push(notice)
        else this.#statements.run(sql.INSERT_NOTICE, sessionId, notice.lease, partition, offset, notice.ended)
      }
      if (stopped.notices.length > 0) running++
      else if (stopped.waiting) waiting++
      if (topic.kind === 'queue') this.#retention.trimQueue(topic.topicId, subscriptionId)
    }
    if (waiting + running > 0) this.#statements.run(sql.CANCEL_OFFSET, topic.topicId, partition, offset)
    return { step: { outcome: { delayed: 0, waiting, running } }, notices }
  }

  // Several ranges may lie over an offset, though it is open in one of them only.
  #stopInRanges(subscriptionId: number, { partition, offset }: MessagePosition, stopped: Stopped): void {
    const rows = this.#statements.all<LeaseRow & Holder>(sql.RANGES_WITH_OFFSET, subscriptionId, partition, offset)
    for (const row of rows) {
      const bits = bitsOf(row)
      if (!bits.settle(offset)) continue
      const ended = this.#leases.update(row, bits) ? 0 : 1
      if (row.sessionId === null) stopped.waiting = true
      else stopped.notices.push({ sessionId: row.sessionId, lease: row.leaseId, partition, offset, ended })
    }
  }

  #stopRows(subscriptionId: number, { partition, offset }: MessagePosition, stopped: Stopped, nowMs: number): void {
    const rows = this.#statements.all<RetryRow & Holder & { leaseId: LeaseId }>(
      sql.ROWS_WITH_OFFSET,
      subscriptionId,
      partition,
      offset,
    )
    for (const row of rows) {
      this.#exceptions.settleForGood(row, nowMs)
      if (row.sessionId === null) stopped.waiting = true
      else stopped.notices.push({ sessionId: row.sessionId, lease: row.leaseId, partition, offset, ended: 1 })
    }
  }
}
