/** Statements that would be slow over many rows without the index that is made for them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DELETE_PLACES_OF_SESSION } from '../../../src/engines/sqlite/sql/admission.ts'
import { RETURN_LOST_LEASES } from '../../../src/engines/sqlite/sql/leases.ts'
import { CHAINS_OF_PARTITION } from '../../../src/engines/sqlite/sql/ownership.ts'
import { BLOCKING_DEAD_LETTERS, FIND_BLOCKING_DEAD_LETTER } from '../../../src/engines/sqlite/sql/retries.ts'
import { Bench, newFile, sql } from './bench.ts'

const PLANS: readonly (readonly [statement: string, plan: RegExp])[] = [
  [DELETE_PLACES_OF_SESSION, /posthorn_in_flight_by_session/],
  [RETURN_LOST_LEASES, /posthorn_leases_by_session/],
  [CHAINS_OF_PARTITION, /posthorn_dead_letters_blocking/],
  [BLOCKING_DEAD_LETTERS, /COVERING INDEX posthorn_dead_letters_blocking/],
  [FIND_BLOCKING_DEAD_LETTER, /posthorn_dead_letters USING INTEGER PRIMARY KEY/],
]

test('statements over many rows use their indexes', async (context) => {
  const file = newFile(context)
  await Bench.make(context, file)
  for (const [statement, plan] of PLANS) {
    const values = Array.from({ length: new Set(statement.match(/\?\d*/g)).size }, () => 1)
    const details = sql(file, `EXPLAIN QUERY PLAN ${statement}`, ...values).map(({ detail }) => detail)
    assert.match(details.join('\n'), plan, statement)
  }
})
