import { test } from 'node:test'
import { sqliteHarness } from '../engines/sqlite-harness.ts'
import { checkAgainstModel } from './engine-model.ts'

test('the SQLite engine keeps what the model says it owes', async () => {
  await checkAgainstModel(sqliteHarness, { runs: 7, stepsMax: 100 })
})
