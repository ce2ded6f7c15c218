import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { keyedGrant, settleDown } from './fake-source.ts'
import { finish, startHeld } from './ordered-rig.ts'

describe('a partition that was taken over', () => {
  test('sets aside what is behind a chain, and runs what is before it', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    const takeover = [{ key: 'a', firstOffset: 2, lastOffset: 5 }]
    source.offer(keyedGrant(0, ['a', 'b'], { takeover }), keyedGrant(6, ['a', 'b']))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['6 park'])
    assert.deepEqual(handler.started, [0, 1])
    await finish(rig)
  })

  test('forgets what was known of it before', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a']))
    await settleDown()
    handler.of(0).reject(new Error('no'))
    await settleDown()
    source.offer(keyedGrant(1, ['a'], { takeover: [] }))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    await finish(rig)
  })
})

describe('a suspect of an ordered subscription', () => {
  const suspect = (offset: number, key: string) =>
    keyedGrant(offset, [key], { lease: 100 + offset, isolated: true, crashes: 1 })

  test('waits for what is before it of its key, and runs alone', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'b']), suspect(2, 'a'), keyedGrant(3, ['a', 'c']))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 4])
    handler.of(0).resolve()
    await settleDown()
    source.offer(keyedGrant(5, ['d']))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 4])
    handler.of(1).resolve()
    handler.of(4).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 4, 2])
    handler.of(2).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1, 4, 2, 5, 3])
    await finish(rig)
  })

  test('is set aside when what is before it fails', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a']), suspect(1, 'a'))
    await settleDown()
    handler.of(0).reject(new Error('no'))
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), ['0 retry', '1 park'])
    await finish(rig)
  })
})

describe('closing an ordered subscription', () => {
  test('hands back what waits, and begins nothing of a key after it', async () => {
    const rig = await startHeld()
    const { source, handler, consumer } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'b']), keyedGrant(3, ['a'], { setAside: true }))
    await settleDown()
    const closed = consumer.close()
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 release', '3 park'], 'what came from a chain goes back into it')
    handler.of(0).resolve()
    handler.of(2).resolve()
    await closed
    assert.deepEqual(handler.started, [0, 2])
    assert.deepEqual(source.acked(), [0, 2])
  })
})

describe('losing a lease', () => {
  test('takes its messages out of their lanes; others of the key go on', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a']), keyedGrant(2, ['a', 'b']))
    await settleDown()
    source.lose([0])
    await settleDown()
    assert.deepEqual(handler.started, [0, 3, 2])
    handler.of(0).resolve()
    handler.of(2).resolve()
    await settleDown()
    assert.deepEqual(source.acked(), [2])
    await finish(rig)
  })
})
