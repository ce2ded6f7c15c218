import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import { inspection as sql } from '../sql/inspection.ts'

/** Reads in several statements what was true at one moment. Nobody waits for it. */
export function readOneMoment<Value>(database: Database, read: (rows: Queryable) => Promise<Value>): Promise<Value> {
  return database.transaction(async (rows) => {
    const [, value] = await Promise.all([rows.run(sql.oneMoment), read(rows)])
    return value
  })
}
