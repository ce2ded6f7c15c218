import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBreaker } from '../../src/consumer/breaker/settings.ts'
import { refuse } from './breaker-rig.ts'
import { keyedGrant, settleDown } from './fake-source.ts'
import { finish, startHeld } from './ordered-rig.ts'

describe('a partition beyond the share of its owner', () => {
  test('is released as far as it has not begun; what runs goes on, and so do other partitions', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'a']), keyedGrant(10, ['a', 'a'], { partition: 1 }))
    await settleDown()
    assert.deepEqual(handler.started, [0, 10])
    source.crowd(0)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 release', '2 release'])
    handler.of(0).resolve()
    handler.of(10).resolve()
    await settleDown()
    assert.deepEqual(source.acked(), [0, 10])
    assert.deepEqual(handler.started, [0, 10, 11])
    await finish(rig)
  })

  test('also what free handlers would begin: messages without a key, and suspects that wait', async () => {
    const rig = await startHeld({ concurrency: 1 })
    const { source, handler } = rig
    const suspect = keyedGrant(5, ['s'], { isolated: true, crashes: 1 })
    source.offer(keyedGrant(10, ['z'], { partition: 1 }))
    await settleDown()
    source.offer(keyedGrant(0, [undefined, 'a', 'b']), suspect)
    await settleDown()
    source.crowd(0)
    await settleDown()
    assert.deepEqual(source.verdicts().toSorted(), ['0 release', '1 release', '2 release', '5 release'])
    handler.of(10).resolve()
    source.offer(keyedGrant(11, ['z'], { partition: 1 }))
    await settleDown()
    assert.deepEqual(handler.started, [10, 11])
    await finish(rig)
  })

  test('what came from the chain of its key goes back into it', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    const setAside = (offset: number) => keyedGrant(offset, ['a'], { setAside: true })
    source.offer(setAside(0), setAside(1))
    await settleDown()
    source.crowd(0)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 park'])
    assert.deepEqual(handler.started, [0])
    await finish(rig)
  })

  test('what was granted before the release was recorded is released too', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a']))
    await settleDown()
    source.crowd(0)
    source.offer(keyedGrant(2, ['a', 'b']))
    await settleDown()
    source.offer(keyedGrant(4, ['c']))
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(source.verdicts().slice(0, 3), ['1 release', '2 release', '3 release'])
    assert.ok(!handler.started.includes(2) && !handler.started.includes(3))
    await finish(rig)
  })

  test('is handled as before once it is taken over again', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'b', 'b']))
    await settleDown()
    source.crowd(0)
    await settleDown()
    handler.of(0).resolve()
    handler.of(2).resolve()
    await settleDown()
    source.offer(keyedGrant(1, ['a'], { takeover: [] }), keyedGrant(3, ['b', 'a']))
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 1, 3])
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 1, 3, 4])
    await finish(rig)
  })

  test('is handled in order when it stays after all', async () => {
    const rig = await startHeld()
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'b']))
    await settleDown()
    source.crowd(0)
    await settleDown()
    // From the pull that was under way, and from the next one.
    source.offer(keyedGrant(1, ['a'], { lease: 50 }))
    await settleDown()
    source.offer(keyedGrant(1, ['a', 'c'], { lease: 51 }))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 release', '1 release'])
    assert.deepEqual(handler.started, [0, 2, 2])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 2, 2, 1])
    await finish(rig)
  })

  test('is released while the breaker is open', async () => {
    const breaker = readBreaker({ threshold: 2 })
    assert.ok(breaker !== undefined)
    const rig = await startHeld({ breaker })
    const { source, handler } = rig
    source.offer(keyedGrant(0, ['a', 'a', 'b']))
    await settleDown()
    await refuse(handler, 0, 2)
    assert.deepEqual(source.verdicts(), [])
    source.crowd(0)
    await settleDown()
    assert.deepEqual(source.verdicts().toSorted(), ['0 release', '1 release', '2 release'])
    await finish(rig)
  })

  test('is released while its messages wait for a limit', async () => {
    const limit = { kind: 'rate', name: 'r', limit: 1, perMs: 60_000, burst: 1, graceMs: 100 } as const
    const rig = await startHeld({ limits: [limit] })
    const { source, handler } = rig
    source.answerAdmit = async (demands) => demands.map(() => ({ startsInMs: [], againInMs: 60_000 }))
    source.offer(keyedGrant(0, ['a', 'a', 'b']))
    await settleDown()
    source.crowd(0)
    await settleDown()
    assert.deepEqual(source.verdicts().toSorted(), ['0 release', '1 release', '2 release'])
    assert.deepEqual(handler.started, [])
    await finish(rig)
  })
})
