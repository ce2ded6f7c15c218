import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { BatchContext } from '../../src/consumer/consumer.ts'
import { Discard, RetryAfter } from '../../src/consumer/outcomes.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { PosthornError } from '../../src/errors.ts'
import { grantOf, messageAt, offsets, settleDown } from './fake-source.ts'
import { START_MS, startRig } from './harness.ts'

const dataOf = (events: readonly StoredEvent[]) => events.map(({ data }) => data)

describe('a batch handler', () => {
  test('gets as many messages as there are, up to its size, at once when it is full', async () => {
    const batches: unknown[][] = []
    const { source, consumer, clock } = await startRig(
      { handleBatch: async (events) => void batches.push(dataOf(events)) },
      { batch: { size: 3, waitMs: 50 } },
    )
    source.offer(grantOf([0, 1]), grantOf([10, 11], { lease: 10 }))
    await settleDown()
    assert.deepEqual(batches, [[0, 1, 10]])
    await clock.advance(49)
    await settleDown()
    assert.equal(batches.length, 1)
    await clock.advance(1)
    await settleDown()
    assert.deepEqual(batches, [[0, 1, 10], [11]])
    assert.deepEqual(source.acked(), [0, 1, 10, 11])
    await consumer.close()
  })

  test('waits no longer than the first message may', async () => {
    const batches: unknown[][] = []
    const { source, consumer, clock } = await startRig(
      { handleBatch: (events) => void batches.push(dataOf(events)) },
      { batch: { size: 10, waitMs: 50 } },
    )
    source.offer(grantOf([0]))
    await clock.advance(30)
    source.offer(grantOf([1]))
    await clock.advance(19)
    await settleDown()
    assert.deepEqual(batches, [])
    await clock.advance(1)
    await settleDown()
    assert.deepEqual(batches, [[0, 1]])
    await consumer.close()
  })

  test('gets what is there once that is large, and nothing more is fetched beside it', async () => {
    const batches: unknown[][] = []
    const busy = Promise.withResolvers<void>()
    const { source, consumer } = await startRig(
      {
        handleBatch: (events) => {
          batches.push(dataOf(events))
          return busy.promise
        },
      },
      { batch: { size: 10_000, waitMs: 60_000 }, concurrency: 1 },
    )
    const megabytes = (count: number) => ({ bytes: count * 1024 * 1024 })
    source.offer(grantOf([0, 1], megabytes(8)))
    await settleDown()
    assert.deepEqual(batches, [])
    source.offer(grantOf([2, 3], megabytes(8)))
    await settleDown()
    assert.deepEqual(batches, [[0, 1, 2, 3]])
    const pulls = source.pulls.length
    source.offer(grantOf([4], megabytes(16)))
    await settleDown()
    assert.equal(source.pulls.length, pulls, 'the buffer is full')
    busy.resolve()
    await settleDown()
    assert.deepEqual(batches, [[0, 1, 2, 3], [4]])
    assert.equal(source.pulls.length, pulls + 1)
    await consumer.close()
  })

  test('fails all of its messages by throwing, each by its own attempt', async () => {
    const seen: BatchContext[] = []
    const { source, consumer } = await startRig(
      {
        handleBatch: (_, context) => {
          seen.push(context)
          throw new Error('no')
        },
      },
      { batch: { size: 3, waitMs: 0 } },
    )
    source.offer(grantOf([0, 1]), grantOf([7], { attempt: 3, crashes: 2 }))
    await settleDown()
    assert.deepEqual(source.verdicts().sort(), ['0 retry', '1 retry', '7 dead attempts'])
    assert.deepEqual([seen[0]?.attempt, seen[0]?.crashes], [3, 2])
    await consumer.close()
  })

  test('can fail single messages, and the rest is acknowledged', async () => {
    const { source, consumer } = await startRig(
      {
        handleBatch: (events, context) => {
          context.fail(events[1]!, new Error('no'))
          context.fail(events[2]!, new Discard('gone'))
          context.fail(events[3]!, new RetryAfter(7_000))
        },
      },
      { batch: { size: 5, waitMs: 0 } },
    )
    source.offer(grantOf(offsets(0, 5)))
    await settleDown()
    assert.deepEqual(source.acked(), [0, 4])
    assert.deepEqual(source.verdicts(), ['1 retry', '2 dead discarded', '3 retry'])
    const last = source.exceptions()[2]
    assert.equal(last?.kind === 'retry' && last.dueAtMs, START_MS + 7_000)
    await consumer.close()
  })

  test('learns where each message stands', async () => {
    const details: unknown[] = []
    const { source, consumer } = await startRig(
      { handleBatch: (events, context) => void details.push(...events.map((event) => context.detailsOf(event))) },
      { batch: { size: 2, waitMs: 0 } },
    )
    const failures = [{ attempt: 1, atMs: 5, name: 'Error', message: 'no' }]
    source.offer(grantOf([0], { partition: 1 }), grantOf([7], { attempt: 2, crashes: 1, partition: 2, failures }))
    await settleDown()
    assert.deepEqual(details, [
      { attempt: 1, crashes: 0, partition: 1, offset: 0, failures: [] },
      { attempt: 2, crashes: 1, partition: 2, offset: 7, failures },
    ])
    await consumer.close()
  })

  test('cannot fail an event of another batch, nor after its end', async () => {
    const contexts: { events: readonly StoredEvent[]; context: BatchContext }[] = []
    const { source, consumer } = await startRig(
      { handleBatch: (events, context) => void contexts.push({ events, context }) },
      { batch: { size: 2, waitMs: 0 } },
    )
    source.offer(grantOf([0, 1]))
    await settleDown()
    const { events, context } = contexts[0]!
    const invalid = (error: unknown) => error instanceof PosthornError && error.code === 'POSTHORN_INVALID_OPTION'
    assert.throws(() => context.fail(messageAt(0).event, new Error('no')), invalid)
    context.fail(events[0]!, new Error('no'))
    await settleDown()
    assert.deepEqual(source.acked(), [0, 1])
    assert.deepEqual(source.exceptions(), [])
    await consumer.close()
  })

  test('does not get what expired or what its check refuses', async () => {
    const batches: unknown[][] = []
    const { source, consumer } = await startRig(
      {
        handleBatch: (events) => void batches.push(dataOf(events)),
        checkEvent: async (event) => {
          if (event.data === 2) throw new TypeError('not an order')
          return { ...event, data: `checked ${event.data}` }
        },
      },
      { batch: { size: 4, waitMs: 0 } },
    )
    const messages = [messageAt(0), messageAt(1, { expiresAtMs: START_MS }), messageAt(2), messageAt(3)]
    source.offer(grantOf([0, 1, 2, 3], { messages }))
    await settleDown()
    assert.deepEqual(batches, [['checked 0', 'checked 3']])
    assert.deepEqual(source.verdicts().sort(), ['1 dead expired', '2 dead invalid'])
    assert.deepEqual(source.acked(), [0, 3])
    await consumer.close()
  })

  test('is not called for a batch of which nothing is left', async () => {
    let calls = 0
    const { source, consumer } = await startRig(
      {
        handleBatch: () => calls++,
        checkEvent: () => {
          throw new TypeError('not an order')
        },
      },
      { batch: { size: 2, waitMs: 0 } },
    )
    source.offer(grantOf([0, 1]))
    await settleDown()
    assert.equal(calls, 0)
    assert.deepEqual(source.verdicts(), ['0 dead invalid', '1 dead invalid'])
    await consumer.close()
  })

  test('that outruns its timeout fails all of its messages', async () => {
    const signals: AbortSignal[] = []
    const { source, consumer, clock } = await startRig(
      {
        handleBatch: (_, { signal }) => {
          signals.push(signal)
          return new Promise(() => {})
        },
      },
      { batch: { size: 2, waitMs: 0 }, timeoutMs: 5_000 },
    )
    source.offer(grantOf([0, 1]))
    await clock.advance(5_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry', '1 retry'])
    assert.equal(signals[0]?.reason.code, 'POSTHORN_HANDLER_TIMEOUT')
    await consumer.close()
  })

  test('that loses the lease of a part is told to stop, which is not held against the rest', async () => {
    const { source, consumer } = await startRig(
      {
        handleBatch: (_, { signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason))
          }),
      },
      { batch: { size: 2, waitMs: 0 } },
    )
    source.offer(grantOf([0]), grantOf([10]))
    await settleDown()
    source.lose([0])
    await settleDown()
    assert.deepEqual(source.verdicts(), ['10 release'])
    await consumer.close()
  })

  for (const [size, cancelled] of [
    [1, [0]],
    [2, [0, 1]],
  ] as const) {
    test(`of ${size} is told to stop once all of it is cancelled`, async () => {
      const signals: AbortSignal[] = []
      const { source, consumer } = await startRig(
        {
          handleBatch: (_, { signal }) => {
            signals.push(signal)
            return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
          },
        },
        { batch: { size, waitMs: 0 } },
      )
      source.offer(grantOf(cancelled))
      await settleDown()
      for (const [place, offset] of cancelled.entries()) {
        assert.equal(signals[0]?.aborted, false, `${place} of ${size} are cancelled`)
        source.cancel(0, offset)
      }
      assert.equal(signals[0]?.reason.code, 'POSTHORN_CANCELLED')
      await settleDown()
      assert.deepEqual(source.verdicts(), [])
      await consumer.close()
    })
  }
})
