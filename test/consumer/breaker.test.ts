import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { RetryAfter } from '../../src/consumer/outcomes.ts'
import { advance, PROBE_MS, refuse, refused, startGuarded, succeed } from './breaker-rig.ts'
import { grantOf, messageAt, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS } from './harness.ts'

describe('a failure that is an outage', () => {
  test('is not settled before something that was started after it works', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startGuarded({ handle: handler.handle }, {}, { concurrency: 2 })
    source.offer(grantOf([0, 1, 2, 3]))
    await settleDown()
    await refuse(handler, 0)
    await succeed(handler, 1)
    assert.deepEqual(handler.started, [0, 1, 2, 3], 'its place is free')
    assert.deepEqual(source.verdicts(), [], 'what was running when it failed tells nothing')
    await clock.advance(10)
    await succeed(handler, 2)
    assert.deepEqual(source.verdicts(), ['0 retry'])
    const [retry] = source.exceptions()
    assert.ok(retry?.kind === 'retry')
    assert.equal(retry.failure.code, 'ECONNREFUSED')
    assert.equal(retry.dueAtMs, START_MS + 1_000, 'counted from when it failed')
    await succeed(handler, 3)
    await consumer.close()
  })

  test('is its own when others fail for reasons of theirs, too', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startGuarded({ handle: handler.handle }, {}, { concurrency: 1 })
    source.offer(grantOf([0, 1]))
    await settleDown()
    await refuse(handler, 0)
    handler.of(1).reject(new TypeError('x is not a function'))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 retry', '0 retry'])
    await consumer.close()
  })

  test('is decided on the last attempt like on any other', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startGuarded({ handle: handler.handle }, {}, { concurrency: 1 })
    source.offer(grantOf([0], { attempt: 3 }), grantOf([1]))
    await settleDown()
    await refuse(handler, 0)
    await succeed(handler, 1)
    assert.deepEqual(source.verdicts(), ['0 dead attempts'])
    await consumer.close()
  })

  test('is tried again, uncounted, when nothing else happens, and opens the breaker in the end', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 3 })
    const { source, consumer, logger } = rig
    source.offer(grantOf([0]))
    await settleDown()
    await refuse(handler, 0)
    await advance(rig, 999)
    assert.equal(handler.calls.length, 1)
    await advance(rig, 1)
    assert.equal(handler.calls.length, 2)
    await refuse(handler, 0)
    await advance(rig, 1_000)
    assert.equal(logger.matching('warn', 'A breaker opened').length, 0)
    await refuse(handler, 0)
    assert.equal(logger.matching('warn', 'A breaker opened').length, 1)
    await advance(rig, PROBE_MS)
    assert.equal(handler.calls.length, 4)
    await succeed(handler, 0)
    assert.deepEqual(source.verdicts(), [])
    assert.deepEqual(source.acked(), [0])
    await consumer.close()
  })

  test('of a lone message at its last attempt makes no dead letter, and opens the breaker late', async () => {
    let calls = 0
    const handle = () => {
      calls++
      throw refused()
    }
    const rig = await startGuarded({ handle }, { threshold: 1 })
    rig.source.offer(grantOf([0], { attempt: 3 }))
    await advance(rig, 44_999)
    assert.equal(calls, 9, 'every five seconds, however short the delay')
    assert.equal(rig.logger.matching('warn', 'A breaker opened').length, 0)
    await advance(rig, 3_600_000)
    assert.equal(rig.logger.matching('warn', 'A breaker opened').length, 1)
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('is its own once it comes again after others have worked', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, {}, { concurrency: 2 })
    const { source, consumer } = rig
    source.offer(grantOf([0, 1]))
    await settleDown()
    await refuse(handler, 0)
    source.offer(grantOf([2]))
    await settleDown()
    await advance(rig, 1_000)
    assert.deepEqual(handler.started, [0, 1, 2], 'it waits for a free place')
    await succeed(handler, 2)
    assert.deepEqual(handler.started, [0, 1, 2, 0])
    assert.deepEqual(source.verdicts(), [])
    await refuse(handler, 0)
    assert.deepEqual(source.verdicts(), ['0 retry'])
    await succeed(handler, 1)
    await consumer.close()
  })

  test('waits for as long as the downstream asked for', async () => {
    let calls = 0
    const rig = await startGuarded({
      handle: () => {
        calls++
        throw new RetryAfter('20s', { cause: refused() })
      },
    })
    rig.source.offer(grantOf([0]))
    await advance(rig, 19_999)
    assert.equal(calls, 1)
    await advance(rig, 1)
    assert.equal(calls, 2)
    await rig.consumer.close()
  })

  test('of a suspect holds nothing up: it is set aside, uncounted, unless others worked before', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startGuarded({ handle: handler.handle })
    const suspect = (offset: number) => grantOf([offset], { isolated: true, crashes: 1 })
    source.offer(suspect(0), grantOf([1]))
    await settleDown()
    await refuse(handler, 0)
    assert.deepEqual(handler.started, [0, 1])
    assert.deepEqual(source.exceptions(), [{ offset: 0, kind: 'park', until: START_MS + 1_000 }])
    await succeed(handler, 1)
    source.offer(suspect(2), grantOf([3]))
    await settleDown()
    await refuse(handler, 2)
    assert.deepEqual(source.verdicts(), ['0 park', '2 retry'])
    await succeed(handler, 3)
    await consumer.close()
  })
})

describe('a message whose failure is undecided', () => {
  test('is forgotten with its lease', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle })
    rig.source.offer(grantOf([0]), grantOf([10, 11]))
    await settleDown()
    await refuse(handler, 0, 10)
    rig.source.lose([0])
    await advance(rig, 1_000)
    assert.deepEqual(handler.started, [0, 10, 11, 10])
    await succeed(handler, 11, 10)
    assert.deepEqual(rig.source.acked(), [10, 11])
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('is forgotten when it is cancelled', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle })
    rig.source.offer(grantOf([0, 1]))
    await settleDown()
    await refuse(handler, 0)
    rig.source.cancel(0, 0)
    await advance(rig, 20_000)
    await succeed(handler, 1)
    assert.deepEqual(handler.started, [0, 1])
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('is released when the consumer closes, as is what fails meanwhile', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startGuarded({ handle: handler.handle })
    source.offer(grantOf([0, 1]))
    await settleDown()
    await refuse(handler, 0)
    const closed = consumer.close()
    await refuse(handler, 1)
    await closed
    assert.deepEqual(source.verdicts().sort(), ['0 release', '1 release'])
  })

  test('expires like any other', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle })
    rig.source.offer(grantOf([0], { messages: [messageAt(0, { expiresAtMs: START_MS + 500 })] }))
    await settleDown()
    await refuse(handler, 0)
    await advance(rig, 1_000)
    assert.deepEqual(rig.source.verdicts(), ['0 dead expired'])
    await rig.consumer.close()
  })
})

describe('isOutage of the user', () => {
  test('decides what is one', async () => {
    const rig = await startGuarded(
      { handle: (event) => Promise.reject(new Error(event.data === 0 ? 'out of paper' : 'jammed')) },
      { isOutage: (error) => (error as Error).message === 'out of paper', threshold: 1 },
      { concurrency: 1 },
    )
    rig.source.offer(grantOf([1, 0]))
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['1 retry'])
    assert.equal(rig.logger.matching('warn', 'out of paper').length, 1)
    await rig.consumer.close()
  })

  test('counts as a no when it throws, and is complained about once', async () => {
    const rig = await startGuarded(
      { handle: () => Promise.reject(refused()) },
      {
        isOutage: () => {
          throw new Error('a mistake')
        },
      },
    )
    rig.source.offer(grantOf([0, 1]))
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['0 retry', '1 retry'])
    assert.equal(rig.logger.matching('warn', 'a mistake').length, 1)
    await rig.consumer.close()
  })
})
