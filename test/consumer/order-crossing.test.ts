/** Grants that cross a settlement: brought by a pull that the engine answered before it knew what was settled meanwhile. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { LeaseId } from '../../src/engine.ts'
import { keyedGrant, settleDown } from './fake-source.ts'
import { blocking, finish, startHeld } from './ordered-rig.ts'

const fromStore = (offset: number, lease: number, attempt = 1) =>
  keyedGrant(offset, ['a'], { lease, attempt, setAside: true })

/** A consumer whose first message of a key has failed; the engine's answer to its settlement is still to come. */
async function startFailed() {
  const rig = await startHeld()
  const recorded = Promise.withResolvers<readonly LeaseId[]>()
  rig.source.settleAnswers.push(() => recorded.promise)
  rig.source.offer(fromStore(0, 1))
  await settleDown()
  rig.handler.of(0).reject(new Error('no'))
  await settleDown()
  assert.deepEqual(rig.source.lastVerdicts(), ['0 retry'])
  return { ...rig, record: () => recorded.resolve([]) }
}

describe('a grant that crosses the settlement of an earlier message of its key', () => {
  test('is set aside when it comes before the answer', async () => {
    const rig = await startFailed()
    rig.source.offer(fromStore(1, 2))
    rig.record()
    await settleDown()
    assert.deepEqual(rig.handler.started, [0])
    assert.deepEqual(rig.source.lastVerdicts(), ['1 park'])
    await finish(rig)
  })

  test('is set aside when the pull that brings it was under way at the answer', async () => {
    const rig = await startFailed()
    rig.record()
    await settleDown()
    rig.source.offer(fromStore(1, 2))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0])
    assert.deepEqual(rig.source.lastVerdicts(), ['1 park'])
    await finish(rig)
  })

  test('waits behind the failed one when that is back first', async () => {
    const rig = await startFailed()
    rig.source.offer(fromStore(1, 2))
    await settleDown()
    rig.source.offer(fromStore(0, 3, 2))
    rig.record()
    await settleDown()
    assert.deepEqual(rig.source.lastVerdicts(), ['1 park'])
    rig.handler.of(0, 1).resolve()
    await settleDown()
    rig.source.offer(fromStore(1, 4))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 0, 1])
    await finish(rig)
  })

  test('is none once the failed one has come back: what follows it runs', async () => {
    const rig = await startFailed()
    rig.record()
    await settleDown()
    rig.source.offer(fromStore(0, 2, 2))
    await settleDown()
    rig.handler.of(0, 1).resolve()
    await settleDown()
    rig.source.offer(fromStore(1, 3), fromStore(2, 4))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 0, 1])
    await finish(rig)
  })

  test('is none when a later pull brings it: an operator has skipped the failed one', async () => {
    const rig = await startFailed()
    rig.record()
    await settleDown()
    rig.source.offer(keyedGrant(9, ['b'], { lease: 5 }))
    await settleDown()
    rig.source.offer(fromStore(1, 2))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 9, 1])
    await finish(rig)
  })
})

/** A consumer whose blocking dead letter was skipped while a pull waited, which has brought the next message of the key. */
async function startSkipped() {
  const rig = await startHeld(blocking)
  rig.source.offer(fromStore(0, 1, 3))
  await settleDown()
  rig.handler.of(0).reject(new Error('no'))
  await settleDown()
  assert.deepEqual(rig.source.lastVerdicts(), ['0 dead attempts'])
  const recorded = Promise.withResolvers<readonly LeaseId[]>()
  rig.source.settleAnswers.push(() => recorded.promise)
  rig.source.offer(fromStore(1, 2))
  await settleDown()
  assert.deepEqual(rig.source.lastVerdicts(), ['1 park'])
  return { ...rig, record: (fenced: readonly LeaseId[] = []) => recorded.resolve(fenced) }
}

describe('a message that is on its way back to the store', () => {
  test('takes along what comes of its key before it is recorded there', async () => {
    const rig = await startSkipped()
    rig.source.offer(fromStore(2, 3), fromStore(3, 4))
    await settleDown()
    rig.record()
    await settleDown()
    assert.deepEqual(rig.handler.started, [0])
    assert.deepEqual(rig.source.lastVerdicts(), ['2 park', '3 park'])
    await finish(rig)
  })

  test('takes along what the pull brings that was under way when it was recorded', async () => {
    const rig = await startSkipped()
    rig.record()
    await settleDown()
    rig.source.offer(fromStore(2, 3))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0])
    assert.deepEqual(rig.source.lastVerdicts(), ['2 park'])
    await finish(rig)
  })

  test('leaves other keys alone, and what comes before it', async () => {
    const rig = await startSkipped()
    const behind = keyedGrant(5, ['a'], { lease: 5, setAside: true })
    rig.source.offer(keyedGrant(0, ['a'], { lease: 3, setAside: true }), keyedGrant(4, ['b'], { lease: 4 }), behind)
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 0, 4])
    rig.record()
    await finish(rig)
  })

  test('runs when it comes again, and the rest of its key after it', async () => {
    const rig = await startSkipped()
    const { source, handler } = rig
    const recorded = Promise.withResolvers<readonly LeaseId[]>()
    source.settleAnswers.push(() => recorded.promise)
    source.offer(fromStore(2, 3))
    await settleDown()
    rig.record()
    await settleDown()
    // Granted when the engine knew that 1 was back, and not yet that 2 was.
    source.offer(fromStore(1, 4), fromStore(3, 5))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    recorded.resolve([])
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), ['3 park'])
    handler.of(1).resolve()
    await settleDown()
    source.offer(fromStore(2, 6), fromStore(3, 7))
    await settleDown()
    handler.of(2).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 2, 3])
    await finish(rig)
  })

  test('is forgotten when its lease is lost', async () => {
    const rig = await startSkipped()
    rig.record([2])
    await settleDown()
    rig.source.offer(keyedGrant(9, ['b'], { lease: 9 }))
    await settleDown()
    rig.source.offer(fromStore(2, 3))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 9, 2])
    await finish(rig)
  })
})
