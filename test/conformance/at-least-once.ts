/** Guarantee 2: every subscription gets every message, and no death of a process loses one. */
import assert from 'node:assert/strict'
import { dataOf } from './messages.ts'
import type { Guarantee } from './suite.ts'

export const atLeastOnce: Guarantee = (test) => {
  test('every subscription gets every message', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 3 })
    const sources = [
      await process.subscribe({ subscription: 'mail' }),
      await process.subscribe({ subscription: 'fraud' }),
      await process.subscribe({ subscription: 'slack' }),
    ]
    const keys = ['a', 'b', 'c', 'd', 'e', 'f']
    for (const key of keys) await process.publish([key], { key })
    for (const source of sources) assert.deepEqual(dataOf(await source.drain()).toSorted(), keys)
  })

  test('a waiting pull wakes when another process publishes', async (world) => {
    const [worker, publisher] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    const waiting = source.pull()
    await worker.roundTrip()
    await publisher.publish(['news'])
    assert.deepEqual(dataOf(await waiting), ['news'])
  })

  test('what a dead process had comes again, once its session has run out and not before', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.publish(['a', 'b', 'c'])
    const source = await doomed.subscribe()
    assert.deepEqual(dataOf(await source.pullAll()), ['a', 'b', 'c'])
    await doomed.crash()
    const heir = await survivor.source()
    assert.deepEqual(await heir.pullNow(), [])
    await world.outliveLeases()
    assert.deepEqual(dataOf(await heir.drain()).toSorted(), ['a', 'b', 'c'])
  })

  test('what was settled before the crash stays settled', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.publish([0, 1, 2, 3, 4, 5])
    const source = await doomed.subscribe()
    const [grant] = await source.pull()
    await source.source.settle([{ lease: grant!.lease, acked: [1, 3, 5, 6], exceptions: [] }])
    await doomed.crash()
    await world.outliveLeases()
    assert.deepEqual(dataOf(await (await survivor.source()).drain()), [0, 3, 4])
  })

  test('a waiting pull wakes when a session runs out', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.publish(['left behind'])
    await (await doomed.subscribe()).pull()
    const waiting = (await survivor.source()).pull()
    await survivor.roundTrip()
    await doomed.crash()
    await world.outliveLeases()
    assert.deepEqual(dataOf(await waiting), ['left behind'])
  })

  test('a retry that a dead process had leased comes again as the same attempt', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.publish(['flaky'])
    const source = await doomed.subscribe()
    await source.retry(await source.pull(), world.clock.now())
    assert.equal((await source.pullOne()).attempt, 2)
    await doomed.crash()
    const heir = await survivor.source()
    await world.outliveLeases()
    const again = await heir.pullOne()
    assert.equal(again.attempt, 2)
    assert.equal(again.failures.length, 1)
  })

  test('an orderly close gives back everything at once, with nothing counted', async (world) => {
    const [leaving, staying] = [await world.process(), await world.process()]
    await leaving.topic()
    await leaving.publish(['a', 'b'])
    await (await leaving.subscribe()).pull()
    await leaving.close()
    const [grant] = await (await staying.source()).pull()
    assert.deepEqual(dataOf([grant!]), ['a', 'b'])
    assert.partialDeepStrictEqual(grant, { attempt: 1, crashes: 0, isolated: false, failures: [] })
  })

  test('a process that opens the store after all others died finds what they left', async (world) => {
    const doomed = await world.process()
    await doomed.topic()
    await doomed.publish(['a', 'b'])
    await (await doomed.subscribe()).pull()
    await doomed.crash()
    await world.outliveLeases()
    const source = await (await world.process()).source()
    assert.deepEqual(dataOf(await source.drain()).toSorted(), ['a', 'b'])
  })

  test('a session that is renewed in time never runs out', async (world) => {
    const [steady, other] = [await world.process(), await world.process()]
    await steady.topic()
    await steady.publish(['slow work'])
    const source = await steady.subscribe()
    const grants = await source.pull()
    await world.outliveLeases()
    await world.outliveLeases()
    assert.deepEqual(await (await other.source()).pullNow(), [])
    assert.deepEqual(source.lost, [])
    assert.deepEqual(await source.ack(grants), [])
  })
}
