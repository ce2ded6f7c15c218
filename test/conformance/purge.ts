/** `purge` empties a topic, whatever is under way. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const purge: Guarantee = (test) => {
  test('messages go, delivered or not, delayed ones too; offsets are not used again', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['delivered', 'waiting'])
    await source.ack([await source.pullOne()])
    await process.publish(['delayed'], { deliverAtMs: world.clock.now() + 100 })
    assert.equal(await process.admin.purge(TOPIC), 3)
    assert.partialDeepStrictEqual(await process.topicState(), { messages: 0, bytes: 0, delayed: 0 })
    await world.advance(100)
    assert.deepEqual(await source.pullNow(), [])
    assert.equal((await process.publish(['new']))[0]?.offset, 2)
    assert.deepEqual(dataOf(await source.pull()), ['new'])
  })

  test('retries and returned messages go with them', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['failing', 'released'])
    await source.retry([await source.pullOne()], world.clock.now())
    await source.release([await source.pull({ messagesMax: 1 }).then(([grant]) => grant!)])
    await process.admin.purge(TOPIC)
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { retrying: 0, returned: 0, backlog: 0 })
  })

  test('what is leased may still be settled, and never comes again', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['a', 'b', 'c'])
    const [one, two, three] = [await source.pullOne(), await source.pullOne(), await source.pullOne()]
    await process.admin.purge(TOPIC)
    await source.ack([one])
    await source.retry([two], world.clock.now())
    await source.release([three])
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { leased: 0, backlog: 0 })
  })

  test('a session that dies with purged messages brings none of them back', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    await doomed.publish(['a', 'b'])
    await (await doomed.subscribe()).pull()
    await survivor.admin.purge(TOPIC)
    await doomed.crash()
    await world.outliveLeases()
    await survivor.publish(['new'])
    assert.deepEqual(dataOf(await (await survivor.source()).drain()), ['new'])
  })

  test('dead letters stay, and can be redriven', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['dead'])
    await source.dead(await source.pull())
    await process.admin.purge(TOPIC)
    assert.equal(await process.admin.redrive(HERE, {}), 1)
    assert.deepEqual(dataOf(await source.drain()), ['dead'])
  })

  test('an id that was published before may be published again', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['first'], { id: 'order-1' })
    await process.admin.purge(TOPIC)
    assert.deepEqual(await process.publish(['again'], { id: 'order-1' }), [
      { duplicate: false, partition: 0, offset: 1 },
    ])
    assert.deepEqual(dataOf(await source.drain()), ['again'])
  })

  test('an unknown topic cannot be purged', async (world) => {
    const process = await world.process()
    await assert.rejects(process.admin.purge('unheard-of'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
  })
}
