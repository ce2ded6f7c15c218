import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runCrashTest } from './run.ts'

test('processes killed at random moments lose nothing, and tear nothing apart', async () => {
  const result = await runCrashTest({ rounds: 6, seed: 1, onRound() {} })
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
  assert.ok(result.kills >= 6 && result.delivered > 0 && result.discarded > 0, JSON.stringify(result))
})
