/** `maxParked`: a subscription that has set aside too much is given nothing new until it has less. */
import assert from 'node:assert/strict'
import { dataOf, numbersTo } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const LIMIT = 3

export const setAsideLimit: Guarantee = (test) => {
  for (const ordered of [true, false]) {
    const kind = ordered ? 'ordered' : 'unordered'

    test(`${kind}: at the limit nothing new comes; what was set aside does, and makes room`, async (world) => {
      const { process, source } = await limited(world, ordered)
      const set = await source.pull({ messagesMax: LIMIT })
      await source.retry(set, world.clock.now() + 100)
      assert.deepEqual(await source.pullNow(), [])
      assert.partialDeepStrictEqual(await process.state(), { retrying: LIMIT, backlog: 5 })
      await world.advance(100)
      const again = await source.pullAll()
      assert.deepEqual(dataOf(again).toSorted(), [0, 1, 2])
      await source.ack(again)
      assert.deepEqual(dataOf(await source.drain()), [3, 4, 5, 6, 7])
    })

    test(`${kind}: below the limit new messages come`, async (world) => {
      const { source } = await limited(world, ordered)
      await source.retry(await source.pull({ messagesMax: LIMIT - 1 }), world.clock.now() + 60_000)
      assert.deepEqual(dataOf([await source.pullOne()]), [2])
    })

    test(`${kind}: what was given back is not new`, async (world) => {
      const { source } = await limited(world, ordered)
      const [set, released] = [await source.pull({ messagesMax: LIMIT }), await source.pull({ messagesMax: 2 })]
      await source.retry(set, world.clock.now() + 60_000)
      await source.release(released)
      assert.deepEqual(dataOf(await source.pullAll()), [3, 4])
    })

    test(`${kind}: messages that wait for a limit count like those that wait for their next attempt`, async (world) => {
      const { source } = await limited(world, ordered)
      await source.park(await source.pull({ messagesMax: LIMIT }), world.clock.now() + 60_000)
      assert.deepEqual(await source.pullNow(), [])
    })
  }

  test('a waiting pull wakes when there is room again', async (world) => {
    const { source } = await limited(world, true)
    await source.retry(await source.pull({ messagesMax: LIMIT }), world.clock.now())
    const again = await source.pullAll()
    const waiting = source.pull({ messagesMax: 1 })
    await source.ack(again)
    assert.deepEqual(dataOf(await waiting), [3])
  })

  test('a raised limit holds at once', async (world) => {
    const { process, source } = await limited(world, true)
    await source.retry(await source.pull({ messagesMax: LIMIT }), world.clock.now() + 60_000)
    const waiting = source.pull()
    await process.roundTrip()
    await process.subscription({ ordered: true, maxParked: LIMIT + 1 })
    assert.equal(dataOf(await waiting)[0], LIMIT)
  })

  test('dead letters are not set aside', async (world) => {
    const { source } = await limited(world, true)
    await source.dead(await source.pull({ messagesMax: LIMIT }))
    assert.deepEqual(dataOf([await source.pullOne()]), [LIMIT])
  })
}

async function limited(world: World, ordered: boolean): Promise<{ process: TestProcess; source: TestSource }> {
  const process = await world.process()
  await process.topic()
  const source = await process.subscribe({ ordered, maxParked: LIMIT })
  await process.publish(numbersTo(8))
  return { process, source }
}
