import type { BreakerReport, SubscriptionState } from '../../../engine.ts'
import { sessionOf } from '../consumers/source-name.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/limits.ts'

type BreakerStates = SubscriptionState['breakers']

interface BreakerRow {
  readonly subscriptionId: number
  readonly source: string
  readonly report: string
}

/** What consumers say of their breakers, for operators to see. It goes with the source, or with its session. */
export class Breakers {
  readonly #database: Queryable

  constructor(database: Queryable) {
    this.#database = database
  }

  /** `source`: its `session/number`. `report` undefined: the breaker is closed. */
  async report(subscriptionId: number, source: string, report: BreakerReport | undefined): Promise<void> {
    if (report === undefined) await this.#database.run(sql.breakers.close, subscriptionId, source)
    else await this.#database.run(sql.breakers.report, subscriptionId, source, JSON.stringify(report))
  }

  /** Those that are not closed, by subscription. */
  async list(rows: Queryable, subscriptionIds: readonly number[]): Promise<ReadonlyMap<number, BreakerStates>> {
    const found = await rows.rows<BreakerRow>(sql.breakers.list, subscriptionIds)
    const bySubscription = Map.groupBy(found, ({ subscriptionId }) => subscriptionId)
    return new Map(Array.from(bySubscription, ([id, breakers]) => [id, breakers.map(toState)]))
  }
}

function toState({ source, report }: BreakerRow): BreakerStates[number] {
  return { ...(JSON.parse(report) as BreakerReport), consumer: sessionOf(source) }
}
