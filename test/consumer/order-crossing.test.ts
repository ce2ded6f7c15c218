/** Grants that cross a settlement: brought by a pull that the engine answered before it knew what was settled meanwhile. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { LeaseId } from '../../src/engine.ts'
import { keyedGrant, settleDown } from './fake-source.ts'
import { finish, startHeld } from './ordered-rig.ts'

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
