import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { DeliveryContext } from '../../src/consumer/consumer.ts'
import { Delivery } from '../../src/consumer/delivery/delivery.ts'
import { GrantLedger } from '../../src/consumer/settlement/grant-ledger.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { FakeSource, grantOf, messageAt, offsets, settleDown } from './fake-source.ts'
import { defaultSettings, environmentOf, HeldHandler, RecordingLogger, START_MS, startRig } from './harness.ts'

describe('a delivery', () => {
  test('is acknowledged when the handler returns, with or without a promise', async () => {
    const thenable = Object.defineProperty({}, 'then', { value: (done: () => void) => done() })
    const outcomes: unknown[] = [undefined, Promise.resolve(), 'text', thenable, null, {}]
    const { source, consumer } = await startRig({ handle: (event) => outcomes[event.data as number] })
    source.offer(grantOf(offsets(0, 6)))
    await settleDown()
    assert.deepEqual(source.acked(), offsets(0, 6))
    assert.deepEqual(source.exceptions(), [])
    await consumer.close()
  })

  test('tells the handler where the message stands', async () => {
    const seen: DeliveryContext[] = []
    const { source, consumer } = await startRig({ handle: (_, context) => seen.push(context) })
    const failures = [{ attempt: 1, atMs: 5, name: 'Error', message: 'no' }]
    source.offer(grantOf([7], { partition: 3, attempt: 2, crashes: 1, failures }))
    await settleDown()
    const { topic, subscription, partition, offset, attempt, crashes, deadline } = seen[0]!
    assert.deepEqual(
      { topic, subscription, partition, offset, attempt, crashes, deadline },
      {
        topic: 'orders',
        subscription: 'billing',
        partition: 3,
        offset: 7,
        attempt: 2,
        crashes: 1,
        deadline: START_MS + 30_000,
      },
    )
    assert.equal(seen[0]!.failures, failures)
    assert.equal(seen[0]!.signal.aborted, false)
    await consumer.close()
  })

  test('runs beside as many others as the concurrency says', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 3 })
    source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2])
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2, 3])
    for (const call of handler.calls) call.resolve()
    await settleDown()
    handler.of(4).resolve()
    await consumer.close()
    assert.deepEqual(source.acked(), offsets(0, 5))
  })

  test('of thousands of messages whose handler returns at once neither recurses nor holds up the event loop', async () => {
    let turns = 0
    const turnsAt = new Set<number>()
    const { source, consumer } = await startRig({ handle: () => void turnsAt.add(turns) })
    const ticking = setInterval(() => {}, 1_000)
    const countTurn = () => {
      turns++
      if (turns < 20) setImmediate(countTurn)
    }
    setImmediate(countTurn)
    source.offer(grantOf(offsets(0, 20_000)))
    await settleDown()
    await settleDown()
    clearInterval(ticking)
    assert.equal(source.acked().length, 20_000)
    assert.ok(turnsAt.size >= 4, `20,000 messages were spread over ${turnsAt.size} turns`)
    await consumer.close()
  })

  test('of an expired message does not reach the handler', async () => {
    const seen: number[] = []
    const { source, consumer } = await startRig({ handle: (event) => seen.push(event.data as number) })
    const messages = [
      messageAt(0, { expiresAtMs: START_MS }),
      messageAt(1, { expiresAtMs: START_MS + 1 }),
      messageAt(2, { expiresAtMs: START_MS - 1 }),
    ]
    source.offer(grantOf([0, 1, 2], { messages }))
    await settleDown()
    assert.deepEqual(seen, [1])
    assert.deepEqual(source.verdicts(), ['0 dead expired', '2 dead expired'])
    const [first] = source.exceptions()
    assert.equal(first?.kind === 'dead' && first.failure.code, 'POSTHORN_MESSAGE_EXPIRED')
    await consumer.close()
  })
})

describe('the check of an event', () => {
  const replaced: StoredEvent = { ...messageAt(0).event, data: 'replaced' }

  for (const [way, check] of [
    ['at once', () => replaced],
    ['later', async () => replaced],
  ] as const) {
    test(`decides what the handler gets, ${way}`, async () => {
      const seen: unknown[] = []
      const { source, consumer } = await startRig({ handle: (event) => seen.push(event), checkEvent: check })
      source.offer(grantOf([0]))
      await settleDown()
      assert.deepEqual(seen, [replaced])
      assert.deepEqual(source.acked(), [0])
      await consumer.close()
    })
  }

  for (const [way, check] of [
    [
      'throws',
      () => {
        throw new TypeError('not an order')
      },
    ],
    [
      'rejects',
      async () => {
        throw new TypeError('not an order')
      },
    ],
  ] as const) {
    test(`makes the message a dead letter when it ${way}`, async () => {
      const seen: unknown[] = []
      const { source, consumer } = await startRig({ handle: (event) => seen.push(event), checkEvent: check })
      source.offer(grantOf([0]))
      await settleDown()
      assert.deepEqual(seen, [])
      assert.deepEqual(source.verdicts(), ['0 dead invalid'])
      const [dead] = source.exceptions()
      assert.equal(dead?.kind === 'dead' && `${dead.failure.name}: ${dead.failure.message}`, 'TypeError: not an order')
      await consumer.close()
    })
  }

  test('counts for the timeout, and the handler is not started after it', async () => {
    const seen: unknown[] = []
    const check = Promise.withResolvers<StoredEvent>()
    const { source, consumer, clock } = await startRig({
      handle: (event) => seen.push(event),
      checkEvent: () => check.promise,
    })
    source.offer(grantOf([0]))
    await clock.advance(30_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'])
    check.resolve(replaced)
    await settleDown()
    assert.deepEqual(seen, [])
    await consumer.close()
  })
})

describe('the signal of a delivery', () => {
  const environment = environmentOf(new VirtualClock(), new RecordingLogger())
  const tools = { settings: defaultSettings, environment, stepStore: new FakeSource() }
  const delivery = () => new Delivery(new GrantLedger(grantOf([0]), 0), 0, tools, 0)

  test('is made when it is read, and aborted from the start when that comes late', () => {
    const late = delivery()
    late.abort(new Error('first'))
    late.abort(new Error('second'))
    assert.equal(late.signal.aborted, true)
    assert.equal(late.signal.reason.message, 'first')
    assert.equal(late.signal, late.signal)
  })

  test('costs no AbortController as long as nobody reads it', async (context) => {
    const { source, consumer } = await startRig({ handle: async () => {} })
    let made = 0
    const Original = globalThis.AbortController
    globalThis.AbortController = class extends Original {
      constructor() {
        super()
        made++
      }
    }
    context.after(() => {
      globalThis.AbortController = Original
    })
    source.offer(grantOf(offsets(0, 100)))
    await settleDown()
    assert.equal(source.acked().length, 100)
    assert.equal(made, 0)
    await consumer.close()
  })
})
