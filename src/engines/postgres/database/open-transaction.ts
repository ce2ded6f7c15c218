import { PosthornError } from '../../../errors.ts'
import { isConnectionFailure } from './failure.ts'
import type { Queryable, Statement, Transaction } from './statement.ts'

/** The server refuses a statement because one before it has failed. */
const FAILED_BEFORE = '25P02'

/** The statements of a transaction, some of which nobody waits for. */
export class OpenTransaction implements Transaction {
  readonly #rows: Queryable
  readonly #sent: Promise<unknown>[] = []

  constructor(rows: Queryable) {
    this.#rows = rows
  }

  rows<Row>(statement: Statement, ...values: readonly unknown[]): Promise<Row[]> {
    return this.#rows.rows<Row>(statement, ...values)
  }

  run(statement: Statement, ...values: readonly unknown[]): Promise<number> {
    return this.#rows.run(statement, ...values)
  }

  send(statement: Statement, ...values: readonly unknown[]): void {
    const sent = this.#rows.run(statement, ...values)
    // It is asked for when the transaction has failed.
    sent.catch(() => {})
    this.#sent.push(sent)
  }

  /** What the transaction has failed for, if this is what was noticed of it. Everything of it must have been answered. */
  async reasonOf(error: unknown): Promise<unknown> {
    // With the connection the answer to the COMMIT was lost, and whether it was carried out.
    if (error instanceof PosthornError && error.code === 'POSTHORN_OUTCOME_UNKNOWN') return error
    for (const outcome of await Promise.allSettled(this.#sent)) {
      if (outcome.status === 'rejected' && isReason(outcome.reason)) return outcome.reason
    }
    return error
  }
}

/** What comes of the failure of others says nothing. */
function isReason(failure: unknown): boolean {
  return !isConnectionFailure(failure) && (failure as { code?: string }).code !== FAILED_BEFORE
}
