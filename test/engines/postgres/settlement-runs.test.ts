import assert from 'node:assert/strict'
import { test } from 'node:test'
import { normalized, runsOf, subtract } from '../../../src/engines/postgres/settlement/runs.ts'

test('ranges in any order become rising ones that do not touch', () => {
  assert.deepEqual(normalized([7, 9, 0, 3, 2, 5, 5, 5, 9, 10]), [0, 5, 7, 10])
  assert.deepEqual(runsOf([4, 1, 2, 2, 7]), [1, 3, 4, 5, 7, 8])
})

test('what is left of ranges', () => {
  assert.deepEqual(subtract([0, 10, 20, 30], [2, 4, 8, 22, 29, 40]), [0, 2, 4, 8, 22, 29])
  assert.deepEqual(subtract([5, 6], [5, 6]), [])
  assert.deepEqual(subtract([5, 6], []), [5, 6])
})
