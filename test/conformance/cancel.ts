/** `cancel` stops one message, wherever it is, for all subscriptions of its topic. */
import assert from 'node:assert/strict'
import { seededRandom } from '../../src/environment/index.ts'
import { IdentifierSource } from '../../src/message/identifier.ts'
import { dataOf, keyIn, newGroup, newMessage, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const KEY = 'user-1'
const NOTHING = { delayed: 0, waiting: 0, running: 0 }
const ONE_WAITING = { ...NOTHING, waiting: 1 }
const ONE_RUNNING = { ...NOTHING, running: 1 }

export const cancel: Guarantee = (test) => {
  test('before it is due: it never enters the log', async (world) => {
    const { process, source } = await fixture(world)
    const deliverAtMs = world.clock.now() + 100
    await process.publish(['cancelled'], { id: 'a', deliverAtMs })
    await process.publish(['kept'], { id: 'b', deliverAtMs })
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), { ...NOTHING, delayed: 1 })
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['kept'])
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), NOTHING)
  })

  test('while it waits for its first delivery', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), ONE_WAITING)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'c'])
    assert.partialDeepStrictEqual(await process.state(), { backlog: 0, deadLetters: 0, leased: 0 })
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), NOTHING)
  })

  test('a second time, it is nothing, wherever the message was', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    await source.release([(await source.pull({ messagesMax: 1 }))[0]!])
    const held = await source.pull({ messagesMax: 2 })
    assert.equal(dataOf(held)[0], 'a')
    await source.retry([held[0]!], world.clock.now() + 100)
    await process.publish(['fresh'], { id: 'd' })
    for (const [id, outcome] of [
      ['a', ONE_WAITING],
      ['b', ONE_RUNNING],
      ['d', ONE_WAITING],
    ] as const) {
      assert.deepEqual(await process.admin.cancel(TOPIC, id), outcome)
      assert.deepEqual(await process.admin.cancel(TOPIC, id), NOTHING, id)
    }
  })

  test('after it was redriven', async (world) => {
    const { process, source } = await fixture(world)
    await process.publish(['a'], { id: 'a' })
    await source.dead(await source.pull())
    await process.admin.redrive({ topic: TOPIC, subscription: SUBSCRIPTION }, {})
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_WAITING)
    assert.deepEqual(await source.pullNow(), [])
  })

  test('with an id that the publisher did not give, from the first message to the last', async (world) => {
    const { process, source } = await fixture(world)
    const ids = new IdentifierSource(seededRandom(5))
    const made: string[] = []
    for (let round = 0; round < 4; round++) {
      const messages = ['x', 'y', 'z'].map((data) => {
        const id = ids.next(world.clock.now())
        made.push(id)
        return generated(`${data}${round}`, id, world)
      })
      await process.engine.append([newGroup(messages)])
      await world.advance(2_000)
    }
    for (const place of [0, 4, 11]) assert.deepEqual(await process.admin.cancel(TOPIC, made[place]!), ONE_WAITING)
    assert.deepEqual(dataOf(await source.drain()), ['y0', 'z0', 'x1', 'z1', 'x2', 'y2', 'z2', 'x3', 'y3'])
    assert.deepEqual(await process.admin.cancel(TOPIC, ids.next(world.clock.now())), NOTHING)
  })

  test('with an id that is no UUID, and was not given for deduplication', async (world) => {
    const { process, source } = await fixture(world)
    const messages = ['it"s', 'naïve'].map((id) => generated(id, id, world))
    await process.engine.append([newGroup(messages)])
    assert.deepEqual(await process.admin.cancel(TOPIC, 'it"s'), ONE_WAITING)
    assert.deepEqual(dataOf(await source.drain()), ['naïve'])
  })

  test('after it was given back', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    await source.release(await source.pull())
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), ONE_WAITING)
    assert.equal((await process.state()).returned, 2)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'c'])
  })

  test('after its process has died, before anybody else has it', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    await source.pull()
    await process.crash()
    const other = await world.process()
    assert.deepEqual(await other.admin.cancel(TOPIC, 'b'), ONE_RUNNING)
    await world.outliveLeases()
    assert.deepEqual(dataOf(await (await other.source()).drain()), ['a', 'c'])
  })

  test('while it waits for its next attempt', async (world) => {
    const { process, source } = await fixture(world)
    await process.publish(['a'], { id: 'a' })
    await source.retry(await source.pull(), world.clock.now() + 100)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_WAITING)
    assert.equal((await process.state()).retrying, 0)
    await world.advance(100)
    assert.deepEqual(await source.pullNow(), [])
  })

  test('the first of a chain: its key goes on', async (world) => {
    const { process, source } = await chain(world)
    const waiting = source.pull()
    await process.roundTrip()
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_WAITING)
    const next = await waiting
    assert.equal(dataOf(next)[0], 'b')
    await source.ack(next)
    assert.deepEqual(dataOf([...next, ...(await source.drain())]), ['b', 'c'])
    assert.deepEqual(await process.admin.checkIntegrity(), [])
  })

  test('one in the middle of a chain: the others wait on', async (world) => {
    const { process, source } = await chain(world)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), ONE_WAITING)
    assert.equal((await process.state()).parked, 1)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(1_000)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'c'])
  })

  test('the first of a chain while it runs: its key goes on', async (world) => {
    const { process, source } = await chain(world)
    await world.advance(1_000)
    const running = await source.pullOne()
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_RUNNING)
    await world.eventually(() => assert.deepEqual(source.cancelled, [{ lease: running.lease, offset: 0 }]))
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
    assert.partialDeepStrictEqual(await process.state(), { leased: 0, retrying: 0, parked: 0 })
  })

  test('while it runs: its holder is told, and what it says later changes nothing', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    const [grant] = await source.pull()
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), ONE_RUNNING)
    await world.eventually(() => assert.deepEqual(source.cancelled, [{ lease: grant!.lease, offset: 1 }]))
    assert.equal((await process.state()).leased, 2)
    const exceptions = [source.retried(1, grant!, world.clock.now())]
    assert.deepEqual(await source.settle([{ lease: grant!.lease, acked: [0, 1, 2, 3], exceptions }]), [])
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { leased: 0, retrying: 0, deadLetters: 0, returned: 0 })
    assert.deepEqual(source.lost, [])
  })

  test('while it runs in another process', async (world) => {
    const { process, source } = await fixture(world)
    await process.publish(['a'], { id: 'a' })
    const grant = await source.pullOne()
    assert.deepEqual(await (await world.process()).admin.cancel(TOPIC, 'a'), ONE_RUNNING)
    await world.advance(1_000)
    await world.eventually(() => assert.deepEqual(source.cancelled, [{ lease: grant.lease, offset: 0 }]))
    await source.retry([grant], world.clock.now())
    await source.release([grant])
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { leased: 0, retrying: 0, returned: 0 })
  })

  test('while a retry of it runs', async (world) => {
    const { process, source } = await fixture(world)
    await process.publish(['a'], { id: 'a' })
    await source.retry(await source.pull(), world.clock.now())
    const grant = await source.pullOne()
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_RUNNING)
    await world.eventually(() => assert.deepEqual(source.cancelled, [{ lease: grant.lease, offset: 0 }]))
    await source.dead([grant])
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { leased: 0, retrying: 0, deadLetters: 0 })
  })

  test('a cancelled suspect lets the next one go', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    await source.pull()
    await process.crash()
    await world.outliveLeases()
    const other = await world.process()
    const heir = await other.source()
    const [suspect] = await heir.pullAll()
    assert.equal(suspect?.isolated, true)
    assert.deepEqual(await other.admin.cancel(TOPIC, 'a'), ONE_RUNNING)
    assert.deepEqual(dataOf(await heir.drain()), ['b', 'c'])
  })

  test('for every subscription, wherever it has the message', async (world) => {
    const { process, source } = await fixture(world)
    for (const subscription of ['fraud', 'slack', 'done']) await process.subscription({ subscription })
    await process.publish(['a'], { id: 'a' })
    await source.pull()
    await (await process.source('done')).drain()
    const retrying = await process.source('fraud')
    await retrying.retry(await retrying.pull(), world.clock.now() + 100)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), { delayed: 0, waiting: 2, running: 1 })
    await world.advance(100)
    for (const subscription of ['fraud', 'slack', 'done']) {
      assert.deepEqual(await (await process.source(subscription)).pullNow(), [])
    }
  })

  test('for replays and subscriptions that come later, too', async (world) => {
    const { process, source } = await fixture(world)
    await publishThree(process)
    await source.pull({ messagesMax: 2 })
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), ONE_RUNNING)
    await process.admin.seek({ topic: TOPIC, subscription: SUBSCRIPTION }, { at: 'earliest' })
    const later = await process.subscribe({ subscription: 'later', start: { at: 'earliest' } })
    for (const reader of [source, later]) assert.deepEqual(dataOf(await reader.drain()), ['a', 'c'])
  })

  test('the youngest, where an id was stored twice because its window was over', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 4, deduplicationWindowMs: 1_000 })
    const source = await process.subscribe()
    for (const id of ['x', 'y']) {
      for (const data of [`${id}1`, `${id}2`, `${id}3`]) {
        // The youngest of one id is in the first partition, that of the other is not.
        const key = keyIn((id === 'x') === (data === 'x3') ? 0 : 2, 4)
        await process.publish([data], { id, key })
        await world.advance(2_000)
      }
    }
    for (const id of ['x', 'y']) assert.deepEqual(await process.admin.cancel(TOPIC, id), ONE_WAITING)
    assert.deepEqual(dataOf(await source.drain()).toSorted(), ['x1', 'x2', 'y1', 'y2'])
  })

  test('the youngest, where another with its id was redriven', async (world) => {
    const process = await world.process()
    await process.topic({ deduplicationWindowMs: 1_000 })
    const source = await process.subscribe()
    await process.publish(['old'], { id: 'a' })
    await source.dead(await source.pull())
    await process.admin.redrive({ topic: TOPIC, subscription: SUBSCRIPTION }, {})
    await world.advance(2_000)
    await process.publish(['young'], { id: 'a' })
    await world.advance(2_000)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_WAITING)
    assert.deepEqual(dataOf(await source.drain()), ['old'])
  })

  test('of two that wait for their time the youngest, and before what is in the log', async (world) => {
    const process = await world.process()
    await process.topic({ deduplicationWindowMs: 1_000 })
    const source = await process.subscribe()
    const deliverAtMs = world.clock.now() + 60_000
    await process.publish(['later'], { id: 'a', deliverAtMs })
    await world.advance(2_000)
    await process.publish(['sooner'], { id: 'a', deliverAtMs: deliverAtMs - 10_000 })
    await world.advance(2_000)
    await process.publish(['now'], { id: 'a' })
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), { ...NOTHING, delayed: 1 })
    await world.advance(60_000)
    assert.deepEqual(dataOf(await source.drain()), ['now', 'later'])
  })

  test('what is settled is not touched: acknowledged or dead', async (world) => {
    const { process, source } = await fixture(world)
    await process.publish(['a'], { id: 'a' })
    await source.drain()
    await process.publish(['b'], { id: 'b' })
    await source.dead(await source.pull())
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), NOTHING)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'b'), NOTHING)
    assert.equal((await process.deadLetters()).length, 1)
  })

  test('when it ends a lease, a key can still be freed under that', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe({ ordered: true })
    for (const id of ['a', 'b']) await process.publish([id], { id, key: KEY })
    const running = await source.pullOne()
    await source.park(await source.pullAll(), 'freed', KEY)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'a'), ONE_RUNNING)
    assert.deepEqual(await source.settle([{ lease: running.lease, acked: [], exceptions: [], freed: [KEY] }]), [])
    assert.deepEqual(dataOf(await source.drain()), ['b'])
  })

  test('an unknown id is nothing; an unknown topic is an error', async (world) => {
    const { process } = await fixture(world)
    assert.deepEqual(await process.admin.cancel(TOPIC, 'unheard-of'), NOTHING)
    await assert.rejects(process.admin.cancel('unheard-of', 'a'), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
  })

  test('a queue whose messages were all cancelled is empty', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    await publishThree(process)
    for (const id of ['a', 'b', 'c']) assert.deepEqual(await process.admin.cancel(TOPIC, id), ONE_WAITING)
    assert.deepEqual(await source.pullNow(), [])
    await process.publish(['d'])
    await source.drain()
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 0)
    assert.equal((await process.state()).backlog, 0)
  })

  test('in every lane and partition', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 4 })
    const source = await process.subscribe()
    const ids: string[] = []
    for (const priority of ['high', undefined, 'low'] as const) {
      for (const key of ['a', 'b', 'c', 'd', 'e']) {
        ids.push(`${priority}-${key}`)
        await process.publish([key], { key, id: ids.at(-1)!, ...(priority && { priority }) })
      }
    }
    for (const id of ids) assert.deepEqual(await process.admin.cancel(TOPIC, id), ONE_WAITING)
    assert.deepEqual(await source.pullNow(), [])
  })
}

async function fixture(world: World): Promise<{ process: TestProcess; source: TestSource }> {
  const process = await world.process()
  await process.topic()
  return { process, source: await process.subscribe() }
}

async function publishThree(process: TestProcess): Promise<void> {
  const messages = ['a', 'b', 'c'].map((id) => newMessage(id, process.world.clock.now(), { id }))
  await process.engine.append([newGroup(messages)])
}

/** A message of a key that waits for its retry in a second, and two behind it. */
async function chain(world: World): Promise<{ process: TestProcess; source: TestSource }> {
  const process = await world.process()
  await process.topic()
  const source = await process.subscribe({ ordered: true })
  const messages = ['a', 'b', 'c'].map((id) => newMessage(id, world.clock.now(), { id, key: KEY }))
  await process.engine.append([newGroup(messages)])
  await source.retryWithFollowers(await source.pull(), world.clock.now() + 1_000, KEY)
  return { process, source }
}

/** As by a publisher that leaves it to Posthorn to make the id. */
function generated(data: string, id: string, world: World) {
  const { deduplicate: _, ...message } = newMessage(data, world.clock.now(), { id })
  return message
}
