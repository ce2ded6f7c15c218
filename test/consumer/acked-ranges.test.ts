import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { ACKED, restoreRanges, takeRanges, wholeRange } from '../../src/consumer/settlement/acked-ranges.ts'
import { GrantLedger } from '../../src/consumer/settlement/grant-ledger.ts'
import { grantOf, messageAt, offsetsIn } from './fake-source.ts'

/** Rising offsets with gaps here and there. */
const someOffsets = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 60 }).map((steps) => {
  let offset = 0
  return steps.map((step) => {
    offset += step
    return offset
  })
})

describe('ranges of acknowledged offsets', () => {
  test('cover what is marked, nothing else, with no two that could be one', () => {
    const marked = someOffsets.chain((all) => fc.tuple(fc.constant(all), fc.subarray(all)))
    fc.assert(
      fc.property(marked, ([all, acked]) => {
        const messages = all.map((offset) => messageAt(offset))
        const marks = Uint8Array.from(all, (offset) => (acked.includes(offset) ? ACKED : 0))
        const ranges = takeRanges(messages, marks, 0, all.length - 1)
        assert.deepEqual(offsetsIn(ranges), acked)
        for (let end = 1; end + 1 < ranges.length; end += 2) assert.ok(ranges[end]! < ranges[end + 1]!)
        assert.deepEqual(takeRanges(messages, marks, 0, all.length - 1), [], 'they are taken once')
      }),
    )
  })

  test('are marked again by restoring them', () => {
    const marked = someOffsets.chain((all) => fc.tuple(fc.constant(all), fc.subarray(all, { minLength: 1 })))
    fc.assert(
      fc.property(marked, ([all, acked]) => {
        const messages = all.map((offset) => messageAt(offset))
        const marks = Uint8Array.from(all, (offset) => (acked.includes(offset) ? ACKED : 0))
        const before = Uint8Array.from(marks)
        const ranges = takeRanges(messages, marks, 0, all.length - 1)
        const { first, last } = restoreRanges(messages, marks, ranges)
        assert.deepEqual(
          [...marks].map((mark) => mark === ACKED),
          [...before].map((mark) => mark === ACKED),
        )
        assert.deepEqual([all[first], all[last]], [acked[0], acked.at(-1)])
      }),
    )
  })

  test('are one for a whole grant without gaps, and not known to be one with gaps', () => {
    assert.deepEqual(wholeRange([3, 4, 5].map((offset) => messageAt(offset))), [3, 6])
    assert.equal(wholeRange([3, 5].map((offset) => messageAt(offset))), undefined)
  })
})

type Step = 'confirm' | 'restore' | number

/** Acknowledges every message in some order, with settlements that succeed or fail in between. */
const histories = someOffsets.chain((all) => {
  const order = fc.shuffledSubarray(
    all.map((_, index) => index),
    { minLength: all.length },
  )
  const answers = fc.array(fc.constantFrom<'confirm' | 'restore'>('confirm', 'restore'), { maxLength: 30 })
  return fc.tuple(fc.constant(all), order, answers).chain(([offsets, indexes, outcomes]) => {
    const steps: Step[] = [...indexes, ...outcomes]
    return fc.record({
      offsets: fc.constant(offsets),
      steps: fc.shuffledSubarray(steps, { minLength: steps.length }),
    })
  })
})

describe('a grant ledger', () => {
  test('tells every offset to the engine exactly once, whatever fails in between', () => {
    fc.assert(
      fc.property(histories, ({ offsets, steps }) => {
        const ledger = new GrantLedger(grantOf(offsets), 0)
        const recorded: number[] = []
        for (const step of [...steps, 'confirm' as const]) {
          if (typeof step === 'number') finish(ledger, step)
          else settle(ledger, step, recorded)
        }
        assert.deepEqual(
          recorded.sort((one, other) => one - other),
          offsets,
        )
        assert.ok(ledger.complete)
        assert.equal(ledger.unrecorded, 0)
      }),
    )
  })
})

function finish(ledger: GrantLedger, index: number): void {
  if (index % 5 === 4) ledger.except(index, { offset: ledger.message(index).offset, kind: 'release' })
  else ledger.ack(index)
}

function settle(ledger: GrantLedger, outcome: 'confirm' | 'restore', recorded: number[]): void {
  const settlement = ledger.take()
  if (outcome === 'restore') {
    ledger.restore()
    return
  }
  ledger.confirm()
  recorded.push(...offsetsIn(settlement.acked), ...settlement.exceptions.map(({ offset }) => offset))
}
