import type { BreakerReport, SubscriptionState } from '../../../../engine.ts'
import * as sql from '../../sql/breakers.ts'
import type { Statements } from '../file/connection.ts'

/** What consumers say of their breakers, for operators to see. Kept in the row of the source, and goes with it. */
export class Breakers {
  readonly #statements: Statements

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** `report` undefined: the breaker is closed. */
  report(sessionId: number, source: number, report: BreakerReport | undefined): void {
    const text = report === undefined ? null : JSON.stringify(report)
    this.#statements.run(sql.REPORT_BREAKER, text, sessionId, source)
  }

  list(subscriptionId: number): SubscriptionState['breakers'] {
    const rows = this.#statements.all<{ sessionId: number; breaker: string }>(sql.LIST_BREAKERS, subscriptionId)
    return rows.map(({ sessionId, breaker }) => ({
      ...(JSON.parse(breaker) as BreakerReport),
      consumer: String(sessionId),
    }))
  }
}
