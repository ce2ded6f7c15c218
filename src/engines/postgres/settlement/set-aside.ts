/**
 * The messages of a subscription that wait outside of the log, a row each, from when they are set aside until they are
 * settled for good: while they are leased, too. That a row is leased is written in the state alone; the row stays as it
 * was, for when it comes back.
 *
 * `state.dueAtMs` is where the search for what is due begins: nothing that nobody holds is due before. It is lowered by
 * whatever sets a row aside or gives it back, and raised by each search, past what was leased or settled since; so a
 * search does not pass by the same dead rows again, however long the server has to keep them.
 */
import type { Failure, StoredEvent } from '../../../engine.ts'
import { parseEvent } from '../../../message/decode.ts'
import { fromStoredText } from '../database/text.ts'
import type { Turn } from '../delivery/turns.ts'
import { settlement as sql } from '../sql/settlement.ts'
import type { MessagePlace } from './changes.ts'

export interface Row extends MessagePlace {
  readonly rowId: number
  readonly key: string | undefined
  /** The number of the next attempt. */
  readonly attempt: number
  readonly crashes: number
  readonly failures: readonly Failure[]
  /** The message itself, kept apart from the log: it was redriven, and outlives retention. */
  readonly event?: StoredEvent
  readonly dueAtMs: number
}

interface StoredRow extends MessagePlace {
  readonly rowId: number
  readonly key: string | null
  readonly attempt: number
  readonly crashes: number
  readonly failures: string
  readonly event: string | null
  readonly dueAtMs: number
}

export class SetAside {
  /**
   * What is due and leased to nobody, in the order in which it fell due: up to `limit` rows, and the first suspect. In an
   * ordered subscription those of these partitions, as far as their chains let them go. Some may only go behind others of
   * their key in what is returned: when one of those is not leased, they are not to be leased either.
   */
  async due(turn: Turn, limit: number, partitions?: readonly number[]): Promise<Row[]> {
    const { state, nowMs, rows } = turn
    if (state.dueAtMs === undefined || state.dueAtMs > nowMs) return []
    const fromMs = state.dueAtMs
    const [found, next] = await Promise.all([
      rows.rows<StoredRow>(...this.#search(turn, fromMs, limit, partitions)),
      this.#next(turn, fromMs),
    ])
    state.dueAtMs = next
    return found.map(toRow).toSorted((one, other) => one.dueAtMs - other.dueAtMs || one.offset - other.offset)
  }

  /** When the next row falls due that is not due yet. What is due already may be waiting for something else. */
  async nextDueMs(turn: Turn): Promise<number | undefined> {
    const { dueAtMs } = turn.state
    if (dueAtMs === undefined || dueAtMs > turn.nowMs) return dueAtMs
    return this.#next(turn, turn.nowMs + 1)
  }

  /** Forgets the rows of a partition from `offset` on, leased or not. */
  async removeFrom({ rows, subscription, state }: Turn, partition: number, offset: number): Promise<void> {
    if (state.setAside === 0) return
    const removed = await rows.run(sql.removeFrom, subscription.subscriptionId, partition, offset)
    state.setAside -= removed
  }

  /** Forgets all of them. */
  async clear({ rows, subscription, state }: Turn): Promise<void> {
    await rows.run(sql.removeAll, subscription.subscriptionId)
    state.setAside = 0
    state.dueAtMs = undefined
  }

  #search(
    { subscription, state, nowMs }: Turn,
    fromMs: number,
    limit: number,
    partitions: readonly number[] | undefined,
  ): [typeof sql.due, ...unknown[]] {
    const { subscriptionId, maxCrashes, ordered } = subscription
    const suspectFrom = Math.max(1, maxCrashes - 1)
    const values = [subscriptionId, fromMs, nowMs, state.leasedRows(), suspectFrom, limit]
    if (!ordered) return [sql.due, ...values]
    return [sql.dueInOrder, ...values, partitions ?? [...state.cursors.keys()]]
  }

  async #next({ rows, subscription, state }: Turn, fromMs: number): Promise<number | undefined> {
    const values = [subscription.subscriptionId, fromMs, state.leasedRows()]
    const [first] = await rows.rows<{ dueAtMs: number }>(sql.nextDue, ...values)
    return first?.dueAtMs
  }
}

function toRow({ key, failures, event, ...row }: StoredRow): Row {
  return {
    ...row,
    key: key === null ? undefined : fromStoredText(key),
    failures: JSON.parse(failures) as Failure[],
    ...(event !== null && { event: parseEvent(event) }),
  }
}
