import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { advance, PROBE_MS, refuse, refused, startGuarded, succeed } from './breaker-rig.ts'
import { grantOf, keyedGrant, offsets, settleDown } from './fake-source.ts'
import { HeldHandler } from './harness.ts'

describe('a batch handler with a breaker', () => {
  const batch = { size: 3, waitMs: 0 }

  test('that fails as a whole leaves all of the batch undecided, and counts as one outage', async () => {
    const batches: unknown[][] = []
    let works = false
    const rig = await startGuarded(
      {
        handleBatch: async (events) => {
          batches.push(events.map(({ data }) => data))
          if (!works) throw refused()
        },
      },
      { threshold: 2 },
      { batch, concurrency: 1 },
    )
    rig.source.offer(grantOf(offsets(0, 9)))
    await settleDown()
    assert.deepEqual(batches, [
      [0, 1, 2],
      [3, 4, 5],
    ])
    works = true
    await advance(rig, PROBE_MS)
    assert.deepEqual(batches.slice(2), [
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 8],
    ])
    assert.deepEqual(rig.source.acked(), offsets(0, 9))
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('decides by their own errors on those that it marked', async () => {
    let calls = 0
    const rig = await startGuarded(
      {
        handleBatch: async (events, context) => {
          if (++calls > 1) return
          context.fail(events[0]!, refused())
          context.fail(events[1]!, new Error('no such customer'))
        },
      },
      { threshold: 1 },
      { batch, concurrency: 1 },
    )
    rig.source.offer(grantOf(offsets(0, 3)))
    await settleDown()
    assert.deepEqual(rig.source.acked(), [2])
    assert.deepEqual(rig.source.verdicts(), ['1 retry'], 'the first one is undecided')
    assert.deepEqual(rig.source.breakerReports, [], 'the downstream answered')
    rig.source.offer(grantOf(offsets(10, 13)))
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['1 retry', '0 retry'])
    await rig.consumer.close()
  })

  test('that marks all of them with outages has met one', async () => {
    const rig = await startGuarded(
      {
        handleBatch(events, context) {
          for (const event of events) context.fail(event, refused())
        },
      },
      { threshold: 1 },
      { batch },
    )
    rig.source.offer(grantOf(offsets(0, 3)))
    await settleDown()
    assert.deepEqual(
      rig.source.breakerReports.map((report) => report?.state),
      ['open'],
    )
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })
})

describe('an ordered subscription with a breaker', () => {
  const ordered = { ordered: { onExhausted: 'dead-letter' } } as const

  test('lets nothing of a key pass a message that is undecided', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, {}, ordered)
    rig.source.offer(keyedGrant(0, ['a', 'a', 'b', 'b']))
    await settleDown()
    await refuse(handler, 0)
    await advance(rig, 999)
    assert.deepEqual(handler.started, [0, 2])
    await advance(rig, 1)
    assert.deepEqual(handler.started, [0, 2, 0])
    await succeed(handler, 0)
    await succeed(handler, 1, 2)
    await succeed(handler, 3)
    assert.deepEqual(handler.started, [0, 2, 0, 1, 3])
    assert.deepEqual(rig.source.acked(), [0, 1, 2, 3])
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('sets the key aside once others have worked', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, {}, ordered)
    rig.source.offer(keyedGrant(0, ['a', 'a', 'b', 'b']))
    await settleDown()
    await refuse(handler, 0)
    await succeed(handler, 2)
    await succeed(handler, 3)
    assert.deepEqual(rig.source.verdicts(), ['0 retry', '1 park'])
    assert.deepEqual(handler.started, [0, 2, 3])
    await rig.consumer.close()
  })

  test('keeps the order of each key through an outage', async () => {
    const started: unknown[] = []
    let works = false
    const rig = await startGuarded(
      {
        handle: async (event) => {
          if (!works) throw refused()
          started.push(event.data)
        },
      },
      { threshold: 2 },
      { ...ordered, concurrency: 3 },
    )
    const keys = offsets(0, 30).map((offset) => `key-${offset % 3}`)
    rig.source.offer(keyedGrant(0, keys))
    await advance(rig, 60_000)
    works = true
    await advance(rig, 60_000)
    assert.deepEqual(rig.source.acked(), offsets(0, 30))
    assert.deepEqual(rig.source.verdicts(), [])
    for (const key of [0, 1, 2]) {
      const ofKey = started.filter((offset) => (offset as number) % 3 === key)
      assert.deepEqual(
        ofKey,
        offsets(0, 10).map((index) => 3 * index + key),
      )
    }
    await rig.consumer.close()
  })
})

describe('a subscription with limits and a breaker', () => {
  const limits = [{ kind: 'inFlight', name: 'in-flight', limit: 1 }] as const

  test('gives up the place of a message that is undecided', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, {}, { limits })
    let left = 1
    rig.source.answerAdmit = async (demands, finished) => {
      for (const { messages } of finished) left += messages
      return demands.map(({ starts }) => {
        const granted = Math.min(left, starts)
        left -= granted
        return { startsInMs: Array.from({ length: granted }, () => 0), againInMs: 10_000 }
      })
    }
    rig.source.offer(grantOf([0, 1]))
    await settleDown()
    assert.deepEqual(handler.started, [0])
    await refuse(handler, 0)
    assert.deepEqual(handler.started, [0, 1])
    await succeed(handler, 1)
    assert.deepEqual(rig.source.verdicts(), ['0 retry'])
    assert.deepEqual(rig.source.acked(), [1])
    await rig.consumer.close()
  })

  test('asks for nothing while the breaker is open', async () => {
    const rig = await startGuarded({ handle: () => Promise.reject(refused()) }, { threshold: 1 }, { limits })
    rig.source.offer(grantOf(offsets(0, 10)))
    await settleDown()
    assert.equal(rig.source.breakerReports.length, 1)
    const asked = rig.source.admissions.length
    await advance(rig, PROBE_MS - 1)
    assert.equal(rig.source.admissions.slice(asked).flatMap(({ demands }) => demands).length, 0)
    await rig.consumer.close()
  })
})
