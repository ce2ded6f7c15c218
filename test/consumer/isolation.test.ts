import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { grantOf, messageAt, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS, startRig } from './harness.ts'

const suspect = (offset: number) => grantOf([offset], { isolated: true, crashes: 1 })

describe('a suspect', () => {
  test('waits for what runs, runs alone, and lets nothing start before it is recorded', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 2 })
    source.offer(grantOf([0, 1]))
    await settleDown()
    source.offer(suspect(50), grantOf([2]))
    await settleDown()
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1], 'offset 2 waits behind the suspect')
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 50])

    const recording = Promise.withResolvers<[]>()
    source.settleAnswers.push(() => recording.promise)
    handler.of(50).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 50], 'its acknowledgement is still under way')
    recording.resolve([])
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 50, 2])
    handler.of(2).resolve()
    await consumer.close()
    assert.deepEqual(source.acked(), [0, 1, 2, 50])
  })

  test('goes one after the other', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    source.offer(suspect(0), suspect(1), grantOf([2]))
    await settleDown()
    assert.deepEqual(handler.started, [0])
    handler.of(0).reject(new Error('no'))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2])
    handler.of(2).resolve()
    await consumer.close()
  })

  test('that expired holds nothing up', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    const messages = [messageAt(0, { expiresAtMs: START_MS })]
    source.offer(grantOf([0], { isolated: true, messages }), grantOf([1]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead expired'])
    assert.deepEqual(handler.started, [1])
    handler.of(1).resolve()
    await consumer.close()
  })

  test('that never ends makes way at its timeout', async () => {
    const handler = new HeldHandler()
    const { source, consumer, clock } = await startRig({ handle: handler.handle }, { timeoutMs: 5_000 })
    source.offer(suspect(0), grantOf([1]))
    await clock.advance(5_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'])
    assert.deepEqual(handler.started, [0, 1])
    handler.of(1).resolve()
    await consumer.close()
  })

  test('whose lease is lost makes way when its handler ends', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle }, { concurrency: 2 })
    source.offer(suspect(0), grantOf([1, 2, 3]))
    await settleDown()
    source.lose([0])
    await settleDown()
    assert.deepEqual(handler.started, [0])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2], 'as many as the concurrency allows')
    for (const offset of [1, 2]) handler.of(offset).resolve()
    await settleDown()
    handler.of(3).resolve()
    await consumer.close()
  })

  test('whose lease is lost while it waits or while its settlement does makes way at once', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startRig({ handle: handler.handle })
    source.settleAnswers.push(async () => [0])
    source.offer(suspect(0), suspect(1), grantOf([2]))
    await settleDown()
    source.lose([1])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 2])
    handler.of(2).resolve()
    await consumer.close()
  })

  test('runs alone under a batch handler too', async () => {
    const batches: unknown[][] = []
    const { source, consumer } = await startRig(
      { handleBatch: (events) => void batches.push(events.map(({ data }) => data)) },
      { batch: { size: 10, waitMs: 0 } },
    )
    source.offer(grantOf([1, 2]), suspect(50), grantOf([3]))
    await settleDown()
    assert.deepEqual(batches, [[50], [1, 2, 3]])
    await consumer.close()
  })
})
