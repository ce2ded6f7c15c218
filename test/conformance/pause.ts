/** The pause switch of a subscription. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const pause: Guarantee = (test) => {
  test('while it is paused nothing is handed out, and nothing is lost', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.admin.pause(HERE)
    await process.publish(['a'])
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { paused: true, backlog: 1 })
    await process.admin.resume(HERE)
    assert.equal((await process.state()).paused, false)
    assert.deepEqual(dataOf(await source.pull()), ['a'])
  })

  test('a waiting pull wakes when another process resumes', async (world) => {
    const [worker, operator] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    await worker.publish(['a'])
    await operator.admin.pause(HERE)
    const waiting = source.pull()
    await worker.roundTrip()
    await operator.admin.resume(HERE)
    assert.deepEqual(dataOf(await waiting), ['a'])
  })

  test('what is out already can be settled; retries wait', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    const source = await process.subscribe()
    const [first, second] = [await source.pullOne(), await source.pullOne()]
    await process.admin.pause(HERE)
    assert.deepEqual(await source.ack([first]), [])
    assert.deepEqual(await source.retry([second], world.clock.now()), [])
    assert.deepEqual(await source.pullNow(), [])
    await process.admin.resume(HERE)
    assert.deepEqual(dataOf(await source.drain()), ['b'])
  })

  test('other subscriptions go on, and pausing twice is pausing', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription()
    const other = await process.subscribe({ subscription: 'other' })
    await process.admin.pause(HERE)
    await process.admin.pause(HERE)
    await process.publish(['a'])
    assert.deepEqual(dataOf(await other.pull()), ['a'])
    await process.admin.resume(HERE)
    assert.deepEqual(dataOf(await (await process.source()).pull()), ['a'])
  })

  test('the switch outlives its process', async (world) => {
    const [operator, worker] = [await world.process(), await world.process()]
    await operator.topic()
    await operator.subscription()
    await operator.admin.pause(HERE)
    await operator.close()
    await worker.publish(['a'])
    assert.deepEqual(await (await worker.source()).pullNow(), [])
  })
}
