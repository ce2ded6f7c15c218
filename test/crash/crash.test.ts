import assert from 'node:assert/strict'
import { test } from 'node:test'
import { whyNoOwnPostgres } from '../servers/postgres-binaries.ts'
import { runCrashTest } from './run.ts'
import type { EngineName } from './store.ts'

/** On Postgres, a round takes longer: its server is started again. */
const ROUNDS: Readonly<Record<EngineName, number>> = { sqlite: 6, postgres: 4 }
const skips: Readonly<Record<EngineName, string | false>> = { sqlite: false, postgres: await whyNoOwnPostgres() }

for (const [engine, skip] of Object.entries(skips) as [EngineName, string | false][]) {
  test(`processes on ${engine} killed at random moments lose nothing, and tear nothing apart`, { skip }, async () => {
    const result = await runCrashTest({ engine, rounds: ROUNDS[engine], seed: 1, onRound() {} })
    const { lost, deadLettered, duplicateIds, damage, undrained } = result
    const { tornTransactions, tornEffects, outOfOrder, repeatedSteps } = result
    assert.deepEqual(
      { lost, deadLettered, duplicateIds, damage, undrained },
      { lost: 0, deadLettered: 0, duplicateIds: 0, damage: [], undrained: 0 },
      JSON.stringify(result),
    )
    assert.deepEqual(
      { tornTransactions, tornEffects, outOfOrder, repeatedSteps },
      { tornTransactions: 0, tornEffects: 0, outOfOrder: 0, repeatedSteps: 0 },
      JSON.stringify(result),
    )
    assert.ok(result.kills >= ROUNDS[engine] && result.delivered > 0 && result.discarded > 0, JSON.stringify(result))
    if (engine === 'postgres') assert.ok(result.serverKills > 0, JSON.stringify(result))
  })
}
