import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Deque } from '../../src/collections/deque.ts'

const NAMES = ['push', 'shift', 'pop', 'unshift', 'takeWhere', 'takeAll'] as const

describe('a deque', () => {
  test('does what an array does', () => {
    const step = fc.record({ name: fc.constantFrom(...NAMES), value: fc.nat({ max: 9 }) })
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const deque = new Deque<number>()
        let model: number[] = []
        for (const { name, value } of steps) {
          if (name === 'push' || name === 'unshift') {
            deque[name](value)
            model[name](value)
          } else if (name === 'takeWhere') {
            const test = (other: number) => other > value
            assert.deepEqual(deque.takeWhere(test), model.filter(test))
            model = model.filter((other) => !test(other))
          } else {
            assert.deepEqual(deque[name](), name === 'takeAll' ? model.splice(0) : model[name as 'shift' | 'pop']())
          }
          assert.equal(deque.length, model.length)
          assert.equal(deque.first, model[0])
        }
      }),
    )
  })

  test('stays in order when more than a thousand were taken from its front', () => {
    const deque = new Deque<number>()
    for (let value = 0; value < 5_000; value++) deque.push(value)
    for (let value = 0; value < 5_000; value++) assert.equal(deque.shift(), value)
    assert.equal(deque.shift(), undefined)
  })
})
