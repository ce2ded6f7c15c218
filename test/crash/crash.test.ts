import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runCrashTest } from './run.ts'

test('processes killed at random moments lose nothing, and tear nothing apart', async () => {
  const result = await runCrashTest({ rounds: 6, seed: 1, onRound() {} })
  const { lost, deadLettered, duplicateIds, tornTransactions, damage, undrained } = result
  assert.deepEqual(
    { lost, deadLettered, duplicateIds, tornTransactions, damage, undrained },
    { lost: 0, deadLettered: 0, duplicateIds: 0, tornTransactions: 0, damage: [], undrained: 0 },
    JSON.stringify(result),
  )
  assert.ok(result.kills >= 6 && result.delivered > 0 && result.discarded > 0, JSON.stringify(result))
})
