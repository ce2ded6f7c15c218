import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Discard } from '../../src/consumer/outcomes.ts'
import { keyedGrant, settleDown } from './fake-source.ts'
import { START_MS, startRig } from './harness.ts'
import { blocking, finish, ordered, startHeld } from './ordered-rig.ts'

describe('messages of one key', () => {
  test('run one after the other, others beside them; those without a key all at once', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'b', undefined, undefined]))
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 3, 4])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 3, 4, 1])
    await finish(rig)
  })

  test('go on only when the settlement of the one before is recorded', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    const recording = Promise.withResolvers<[]>()
    source.settleAnswers.push(() => recording.promise)
    source.offer(keyedGrant(0, ['a', 'a']))
    await settleDown()
    handler.of(0).resolve()
    await settleDown()
    assert.equal(source.settlements.length, 1)
    assert.deepEqual(handler.started, [0])
    recording.resolve([])
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    await finish(rig)
  })

  test('go on behind a cancelled one when its handler has been told to stop', async () => {
    const signals: AbortSignal[] = []
    const stopped: (readonly boolean[])[] = []
    const over = Promise.withResolvers<void>()
    const rig = await startRig(
      {
        handle(_event, { signal }) {
          stopped.push(signals.map(({ aborted }) => aborted))
          signals.push(signal)
          return over.promise
        },
      },
      ordered,
    )
    rig.source.offer(keyedGrant(0, ['a', 'a']))
    await settleDown()
    rig.source.cancel(0, 0)
    await settleDown()
    assert.deepEqual(stopped, [[], [true]])
    over.resolve()
    await rig.consumer.close()
  })

  test('wait for a settlement that fails until it succeeds', async () => {
    const rig = await startHeld()
    const { source, handler, clock } = rig
    source.settleAnswers.push(() => Promise.reject(new Error('busy')))
    source.offer(keyedGrant(0, ['a', 'a']))
    await settleDown()
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0])
    await clock.advance(100)
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    await finish(rig)
  })

  test('of different partitions do not wait for each other', async () => {
    const rig = await startHeld()
    rig.source.offer(keyedGrant(0, ['a']), keyedGrant(5, ['a'], { partition: 1 }))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 5])
    await finish(rig)
  })

  test('run in the order of their offsets, in whatever order they came', async () => {
    const rig = await startHeld({ concurrency: 1 })
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['x']), keyedGrant(7, ['a']), keyedGrant(3, ['a']), keyedGrant(5, ['a']))
    for (const offset of [0, 3, 5, 7]) {
      await settleDown()
      assert.equal(handler.started.at(-1), offset)
      handler.of(offset).resolve()
    }
    await settleDown()
    assert.deepEqual(handler.started, [0, 3, 5, 7])
    await finish(rig)
  })

  test('go on at once after a dead letter, and after one that expired or was cancelled', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    const grant = keyedGrant(0, ['a', 'a', 'a', 'a', 'a'])
    const messages = grant.messages.map((message) =>
      message.offset === 1 ? { ...message, expiresAtMs: START_MS } : message,
    )
    source.offer({ ...grant, messages })
    await settleDown()
    handler.of(0).reject(new Discard('never'))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead discarded', '1 dead expired'])
    assert.deepEqual(handler.started, [0, 2])
    source.cancel(0, 3)
    source.cancel(0, 2)
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 4])
    handler.of(4).resolve()
    await settleDown()
    assert.deepEqual(source.acked(), [4], 'nothing is said of those that were cancelled')
    await finish(rig)
  })

  test('are in a batch one at a time', async () => {
    const batches: unknown[][] = []
    const { source, consumer } = await startRig(
      { handleBatch: (events) => void batches.push(events.map(({ data }) => data)) },
      { ...ordered, concurrency: 1, batch: { size: 10, waitMs: 0 } },
    )
    source.offer(keyedGrant(0, ['a', 'b', 'a', 'c', 'b', 'a']))
    await settleDown()
    assert.deepEqual(batches, [[0, 1, 3], [2, 4], [5]])
    await consumer.close()
  })
})

describe('when a message fails', () => {
  test('what waits of its key is set aside in the same settlement call', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'b', 'a']), keyedGrant(3, ['a', 'b']))
    await settleDown()
    handler.of(0).reject(new Error('no'))
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), ['0 retry', '2 park', '3 park'])
    assert.deepEqual([...source.parks().values()], ['chain', 'chain'])
    assert.deepEqual(
      source.exceptions().map((exception) => 'key' in exception && exception.key),
      ['a', 'a', 'a'],
    )
    assert.deepEqual(handler.started, [0, 1])
    await finish(rig)
  })

  test('all of it goes with one call even when a call was under way, and when that call fails', async () => {
    const rig = await startHeld()
    const { source, handler, clock } = rig
    const failing = Promise.withResolvers<[]>()
    source.settleAnswers.push(() => failing.promise)
    source.offer(keyedGrant(0, ['b', 'a', 'c']), keyedGrant(3, ['a', 'b', 'd']))
    await settleDown()
    handler.of(5).resolve()
    await settleDown()
    handler.of(0).resolve()
    handler.of(1).reject(new Error('no'))
    await settleDown()
    assert.equal(source.settlements.length, 1)
    failing.reject(new Error('busy'))
    await settleDown()
    await clock.advance(100)
    await settleDown()
    assert.equal(source.settlements.length, 2)
    assert.deepEqual(source.lastVerdicts(), ['1 retry', '3 park'], 'in the order of the messages')
    assert.deepEqual(
      source.settlements[1]!.map(({ acked }) => acked),
      [
        [0, 1],
        [5, 6],
      ],
    )
    await finish(rig)
  })

  test('what comes of its key later is set aside at once, until the chain has ended', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a']))
    await settleDown()
    handler.of(0).reject(new Error('no'))
    await settleDown()
    source.offer(keyedGrant(1, ['a', 'b']))
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), ['1 park'])
    assert.deepEqual(handler.started, [0, 2])

    source.offer(keyedGrant(0, ['a'], { lease: 10, setAside: true, attempt: 2 }))
    source.offer(keyedGrant(1, ['a'], { lease: 11, setAside: true }))
    await settleDown()
    handler.calls.at(-1)!.resolve()
    await settleDown()
    source.offer(keyedGrant(3, ['a']))
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), ['3 park'], '1 is not settled yet')
    assert.deepEqual(handler.started, [0, 2, 0, 1])
    handler.of(1).resolve()
    await settleDown()
    source.offer(keyedGrant(3, ['a'], { lease: 12, setAside: true }))
    await settleDown()
    handler.of(3).resolve()
    await settleDown()
    source.offer(keyedGrant(4, ['a']))
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 0, 1, 3, 4], 'nothing of it is in the store any more')
    await finish(rig)
  })

  test('for the last time, others go on; or wait for an operator, where the key is to block', async () => {
    for (const [settings, verdicts, started] of [
      [ordered, ['0 dead attempts'], [0, 1]],
      [blocking, ['0 dead attempts', '1 park'], [0]],
    ] as const) {
      const rig = await startHeld(settings)
      const { source, handler } = rig
      source.offer(keyedGrant(0, ['a'], { attempt: 3, setAside: true }), keyedGrant(1, ['a']))
      await settleDown()
      handler.of(0).reject(new Error('no'))
      await settleDown()
      assert.deepEqual(source.verdicts(), verdicts)
      assert.equal(
        source.exceptions().some((exception) => 'blocks' in exception),
        settings === blocking,
      )
      assert.deepEqual(handler.started, started)
      await finish(rig)
    }
  })

  test('only its last attempt blocks a key: not a discard, and not an event without a key', async () => {
    const rig = await startHeld(blocking)
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', undefined], { attempt: 3 }))
    await settleDown()
    handler.of(0).reject(new Discard('never'))
    handler.of(2).reject(new Error('no'))
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 1])
    assert.ok(!source.exceptions().some((exception) => 'blocks' in exception))
    await finish(rig)
  })
})
