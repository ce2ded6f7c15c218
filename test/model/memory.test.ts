import { test } from 'node:test'
import { memoryHarness } from '../engines/memory-harness.ts'
import { checkAgainstModel } from './engine-model.ts'

test('the memory engine keeps what the model says it owes', async () => {
  await checkAgainstModel(memoryHarness, { runs: 300, stepsMax: 120 })
})
