import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { advance, PROBE_MS, refuse, startGuarded, succeed } from './breaker-rig.ts'
import { grantOf, keyedGrant, offsets, settleDown } from './fake-source.ts'
import { HeldHandler } from './harness.ts'

const retry = (offset: number) => grantOf([offset], { attempt: 2 })
const retries = (from: number, to: number) => offsets(from, to).map(retry)

describe('while a breaker is open', () => {
  test('a message that has not failed before is the probe, whatever was granted before it', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 1 })
    rig.source.offer(grantOf([0]))
    await settleDown()
    rig.source.offer(...retries(10, 30), grantOf([1, 2]))
    await refuse(handler, 0)
    await refuse(handler, 0)
    assert.deepEqual(handler.started, [0])
    await advance(rig, PROBE_MS)
    assert.deepEqual(handler.started, [0, 0], 'what opened it has been tried once')
    await refuse(handler, 0)
    await advance(rig, 2 * PROBE_MS)
    assert.deepEqual(handler.started, [0, 0, 1])
    void rig.consumer.close()
    await succeed(handler, 1)
  })

  test('retries that wait keep no others from being fetched', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 1 })
    rig.source.offer(grantOf([0]))
    await settleDown()
    await refuse(handler, 0)
    rig.source.cancel(0, 0)
    for (const from of [10, 300, 600]) {
      rig.source.offer(...retries(from, from + 290))
      await settleDown()
    }
    rig.source.offer(grantOf([1]))
    await advance(rig, PROBE_MS)
    assert.deepEqual(handler.started, [0, 1])
    void rig.consumer.close()
    await succeed(handler, 1)
  })

  test('several retries are tried when there is nothing else, uncounted, and then nothing for longer', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 2 }, { concurrency: 1 })
    rig.source.offer(grantOf([0, 1]))
    await settleDown()
    await refuse(handler, 0)
    await refuse(handler, 1)
    for (const offset of [0, 1]) rig.source.cancel(0, offset)
    rig.source.offer(...retries(10, 20))
    await advance(rig, PROBE_MS)
    for (let tried = 2; tried < 6; tried++) await refuse(handler, handler.started[tried] as number)
    assert.equal(new Set(handler.started).size, 6)
    assert.equal(rig.source.breakerReports.at(-1)?.state, 'open')
    await advance(rig, 2 * PROBE_MS - 1)
    assert.equal(handler.calls.length, 6)
    await advance(rig, 1)
    assert.equal(handler.calls.length, 7)
    assert.deepEqual(rig.source.verdicts(), [])
    void rig.consumer.close()
    await succeed(handler, handler.started.at(-1) as number)
  })

  test('one retry that is all there is does not run in circles', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 5 }, { concurrency: 1 })
    rig.source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    for (const offset of offsets(0, 5)) await refuse(handler, offset)
    for (const offset of offsets(0, 5)) rig.source.cancel(0, offset)
    rig.source.offer(retry(10))
    await advance(rig, PROBE_MS)
    await refuse(handler, 10)
    await refuse(handler, 10)
    assert.equal(handler.calls.length, 7)
    assert.equal(rig.source.breakerReports.at(-1)?.state, 'open')
    await rig.consumer.close()
  })

  test('the order of a key stays as it is', async () => {
    const handler = new HeldHandler()
    const ordered = { onExhausted: 'dead-letter' } as const
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 1, ordered })
    rig.source.offer(keyedGrant(0, ['a']))
    await settleDown()
    await refuse(handler, 0)
    rig.source.offer(keyedGrant(10, ['b'], { attempt: 2, setAside: true }), keyedGrant(11, ['c', 'b', 'c']))
    await advance(rig, PROBE_MS)
    while (handler.started.length < 6) await succeed(handler, handler.started.at(-1) as number)
    const started = handler.started.slice(1)
    assert.ok(started.indexOf(11) < started.indexOf(13))
    assert.ok(started.indexOf(10) < started.indexOf(12))
    await succeed(handler, handler.started.at(-1) as number)
    assert.deepEqual(rig.source.acked(), [0, 10, 11, 12, 13])
    await rig.consumer.close()
  })
})

describe('while a breaker is ramping', () => {
  test('the failure of one message does not open it', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 3 }, { concurrency: 8 })
    rig.source.offer(grantOf(offsets(0, 40)))
    await settleDown()
    await refuse(handler, 0)
    await refuse(handler, 1)
    await refuse(handler, 2)
    await refuse(handler, ...(handler.started.slice(3) as number[]))
    for (const offset of handler.started) rig.source.cancel(0, offset as number)
    await advance(rig, PROBE_MS)
    const latest = () => handler.started.at(-1) as number
    await succeed(handler, latest())
    await refuse(handler, latest())
    assert.equal(rig.source.breakerReports.at(-1)?.state, 'ramping')
    await refuse(handler, latest())
    assert.equal(rig.source.breakerReports.at(-1)?.state, 'open')
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })
})

describe('retries that fail like an outage, before messages that work', () => {
  test('open nothing, and are settled with the first that works', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 2 })
    rig.source.offer(...retries(10, 40), grantOf([0, 1]))
    await settleDown()
    for (const offset of offsets(10, 40)) await refuse(handler, offset)
    assert.deepEqual(rig.source.verdicts(), [])
    assert.deepEqual(rig.source.breakerReports, [])
    await succeed(handler, 0)
    // It had started before the last of them failed.
    const verdicts = offsets(10, 40).map((offset) => `${offset} retry`)
    assert.deepEqual(rig.source.verdicts(), verdicts.slice(0, -1))
    await succeed(handler, 1)
    assert.deepEqual(rig.source.verdicts(), verdicts)
    await rig.consumer.close()
  })
})
