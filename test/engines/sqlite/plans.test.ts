/** Statements that would be slow over many rows without the index that is made for them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DELETE_PLACES_OF_SESSION } from '../../../src/engines/sqlite/sql/admission.ts'
import { FIND_BLOCKER, WAKE_FIRSTS } from '../../../src/engines/sqlite/sql/chains.ts'
import { RETURN_LOST_LEASES } from '../../../src/engines/sqlite/sql/leases.ts'
import { CHAINS_OF_PARTITION, WORK_OF_OWNER } from '../../../src/engines/sqlite/sql/ownership.ts'
import {
  BLOCKING_DEAD_LETTERS,
  DUE_IN_PARTITION,
  DUE_RETRIES,
  FIND_BLOCKING_DEAD_LETTER,
  FIND_FAILED_RETRY,
  NEXT_RETRY,
} from '../../../src/engines/sqlite/sql/retries.ts'
import { FLOOR, LOOK_FOR_WORK } from '../../../src/engines/sqlite/sql/subscriptions.ts'
import { Bench, newFile, sql } from './bench.ts'

const PLANS: readonly (readonly [statement: string, plan: RegExp])[] = [
  [DELETE_PLACES_OF_SESSION, /posthorn_in_flight_by_session/],
  [RETURN_LOST_LEASES, /posthorn_leases_by_session/],
  [CHAINS_OF_PARTITION, /posthorn_dead_letters_blocking/],
  [BLOCKING_DEAD_LETTERS, /COVERING INDEX posthorn_dead_letters_blocking/],
  [FIND_FAILED_RETRY, /posthorn_retries_by_offset/],
  [FIND_BLOCKING_DEAD_LETTER, /posthorn_dead_letters USING INTEGER PRIMARY KEY/],
  // Without sorting: all that is due would be read for each pull.
  [DUE_IN_PARTITION, /^(?!.*TEMP B-TREE).*due USING INDEX posthorn_retries_by_partition .*due_at_ms<\?/s],
  [
    DUE_IN_PARTITION,
    /earlier USING INDEX posthorn_retries_by_key .*blocker USING INDEX posthorn_dead_letters_blocking/s,
  ],
  [FIND_BLOCKER, /posthorn_dead_letters_blocking \(subscription_id=\? AND partition=\? AND message_key=\?\)/],
  [WAKE_FIRSTS, /d USING INDEX posthorn_dead_letters_blocking/],
  [DUE_RETRIES, /posthorn_retries_by_due \(subscription_id=\? AND due_at_ms<\?\)/],
  [WORK_OF_OWNER, /due USING INDEX posthorn_retries_by_partition .*due_at_ms<\?/s],
  [NEXT_RETRY, /posthorn_retries_by_due \(subscription_id=\? AND due_at_ms<\?\)/],
  [LOOK_FOR_WORK, /posthorn_retries_by_due \(subscription_id=\? AND due_at_ms<\?\)/],
  [FLOOR, /posthorn_retries_in_log \(subscription_id=\? AND partition=\?\)/],
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
