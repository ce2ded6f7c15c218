import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type Random, seededRandom, systemRandom } from '../../src/environment/index.ts'
import { IdentifierSource } from '../../src/message/identifier.ts'

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

function timeOf(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
}

describe('message ids', () => {
  test('are UUIDs of version 7 that hold the time', () => {
    const nowMs = Date.UTC(2026, 4, 1)
    const id = new IdentifierSource(systemRandom).next(nowMs)
    assert.match(id, UUID_V7)
    assert.equal(timeOf(id), nowMs)
  })

  test('rise, whatever the clock does', () => {
    const steps = fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 300 })
    const property = fc.property(steps, fc.integer(), (changes, seed) => {
      const source = new IdentifierSource(seededRandom(seed))
      let nowMs = 1_000_000
      let last = ''
      for (const change of changes) {
        nowMs += change
        const id = source.next(nowMs)
        assert.match(id, UUID_V7)
        assert.ok(id > last, `${id} came after ${last}.`)
        last = id
      }
    })
    fc.assert(property)
  })

  test('rise within one millisecond beyond what the low part of the counter holds', () => {
    const source = new IdentifierSource(seededRandom(7))
    let last = ''
    for (let count = 0; count < 40_000; count++) {
      const id = source.next(5)
      assert.ok(id > last)
      last = id
    }
    assert.equal(timeOf(last), 5)
  })

  test('are the same for the same seed, and differ between sources', () => {
    const first = new IdentifierSource(seededRandom(1)).next(5)
    assert.equal(new IdentifierSource(seededRandom(1)).next(5), first)
    assert.notEqual(new IdentifierSource(seededRandom(2)).next(5), first)
  })

  test('leave the counter half its room when the random bytes are all ones', () => {
    const ones: Random = { number: () => 0.5, fill: (bytes) => bytes.fill(0xff) }
    assert.equal(new IdentifierSource(ones).next(5), '00000000-0005-77ff-bffe-ffffffffffff')
  })
})
