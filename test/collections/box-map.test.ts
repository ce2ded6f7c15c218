import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BoxMap } from '../../src/collections/box-map.ts'

test('take deletes an entry and returns its value', () => {
  const map = new BoxMap<number, string>()
  map.set(1, 'one')
  map.set(2, 'two')
  assert.equal(map.get(1), 'one')
  assert.equal(map.take(1), 'one')
  assert.equal(map.take(1), undefined)
  assert.equal(map.get(1), undefined)
  assert.equal(map.size, 1)
})

test('set replaces a value', () => {
  const map = new BoxMap<number, string>()
  map.set(1, 'one')
  map.set(1, 'uno')
  assert.equal(map.size, 1)
  assert.equal(map.take(1), 'uno')
})

test('takeAll empties the map and returns what was in it, in the order of its coming', () => {
  const map = new BoxMap<string, number>()
  for (const [number, name] of ['a', 'b', 'c'].entries()) map.set(name, number)
  map.take('b')
  assert.deepEqual(map.takeAll(), [0, 2])
  assert.equal(map.size, 0)
})
