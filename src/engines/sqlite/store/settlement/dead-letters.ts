import type { DeadReason } from '../../../../engine.ts'
import * as sql from '../../sql/retries.ts'
import type { Statements } from '../file/connection.ts'
import type { Chains } from '../order/chains.ts'

export interface DeadLetterRow {
  readonly id: number
  readonly partition: number
  readonly offset: number
  readonly reason: DeadReason
  readonly deadAtMs: number
  readonly attempts: number
  readonly crashes: number
  readonly failures: string
  readonly event: string | null
  readonly key: string | null
  readonly blocks: 0 | 1
}

/** Messages that are buried, until an operator redrives or deletes them. */
export class DeadLetters {
  readonly #statements: Statements
  readonly #chains: Chains

  constructor(statements: Statements, chains: Chains) {
    this.#statements = statements
    this.#chains = chains
  }

  /** Oldest first. */
  page(subscriptionId: number, afterId: number, limit: number): DeadLetterRow[] {
    return this.#statements.all<DeadLetterRow>(sql.LIST_DEAD_LETTERS, subscriptionId, afterId, limit)
  }

  find(subscriptionId: number, id: number): DeadLetterRow | undefined {
    return this.#statements.get<DeadLetterRow>(sql.FIND_DEAD_LETTER, subscriptionId, id)
  }

  /** Deletes some or all. Keys that they blocked go on. */
  delete(subscriptionId: number, ids: readonly number[] | undefined, nowMs: number): number {
    const blocking = this.#blockedBy(subscriptionId, ids)
    const deleted = this.#delete(subscriptionId, ids)
    for (const { partition, key } of blocking) {
      if (key !== null) this.#chains.advance({ subscriptionId, partition, key }, nowMs)
    }
    return deleted
  }

  #blockedBy(subscriptionId: number, ids: readonly number[] | undefined): Pick<DeadLetterRow, 'partition' | 'key'>[] {
    if (!ids) return this.#statements.all(sql.BLOCKING_DEAD_LETTERS, subscriptionId)
    return ids.flatMap((id) => this.#statements.all(sql.FIND_BLOCKING_DEAD_LETTER, subscriptionId, id))
  }

  #delete(subscriptionId: number, ids: readonly number[] | undefined): number {
    if (!ids) return Number(this.#statements.run(sql.DELETE_ALL_DEAD_LETTERS, subscriptionId).changes)
    let deleted = 0
    for (const id of ids) deleted += Number(this.#statements.run(sql.DELETE_DEAD_LETTER, subscriptionId, id).changes)
    return deleted
  }
}
