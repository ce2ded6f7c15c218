/** Priorities: lanes with partitions of their own, granted by weight. */
import assert from 'node:assert/strict'
import type { Grant, Priority } from '../../src/engine.ts'
import { PRIORITY_WEIGHTS } from '../../src/engine.ts'
import { dataOf, keyIn, numbersTo, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const LANES: readonly Priority[] = ['high', 'normal', 'low']
const ROUND = PRIORITY_WEIGHTS.high + PRIORITY_WEIGHTS.normal + PRIORITY_WEIGHTS.low
// How far from its share a lane may be: "about".
const TOLERANCE = 0.4

export const priorities: Guarantee = (test) => {
  for (const [manner, messagesMax] of [
    ['in small pulls', ROUND],
    ['one by one', 1],
    ['in large pulls', 10 * ROUND],
  ] as const) {
    test(`while all lanes have messages, each gets its share, ${manner}`, async (world) => {
      const process = await world.process()
      await process.topic()
      const source = await process.subscribe()
      for (const lane of LANES) await publishIn(process, lane, 400)
      const grants: Grant[] = []
      while (dataOf(grants).length < 10 * ROUND) {
        const left = 10 * ROUND - dataOf(grants).length
        grants.push(...(await source.pull({ messagesMax: Math.min(messagesMax, left) })))
      }
      for (const lane of LANES) assertShare(grants, lane, 10 * PRIORITY_WEIGHTS[lane])
      for (const lane of LANES) assertInOrder(grants, lane)
    })
  }

  test('what a lane does not need goes to the others', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await publishIn(process, 'low', 30)
    await publishIn(process, 'high', 2)
    const grants = await source.pull({ messagesMax: ROUND })
    assert.equal(lane(grants, 'high').length, 2)
    assert.equal(lane(grants, 'low').length, ROUND - 2)
  })

  test('high goes first, also before what was published long before it', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await publishIn(process, 'low', 5)
    await publishIn(process, 'normal', 5)
    await publishIn(process, 'high', 5)
    const first = await pullSome(source, 5)
    assert.ok(lane(first, 'high').length >= 3, `${lane(first, 'high').length} of the first 5 are high`)
  })

  for (const ordered of [false, true]) {
    test(`a cancelled message takes no room from another lane${ordered ? ' of an ordered subscription' : ''}`, async (world) => {
      const process = await world.process()
      await process.topic()
      const source = await process.subscribe({ ordered })
      for (const priority of LANES) await process.publish([priority], { id: priority, ...priorityOptions(priority) })
      for (const priority of ['high', 'normal']) await process.admin.cancel(TOPIC, priority)
      assert.deepEqual(dataOf(await source.pullNow(1)), ['low'])
    })
  }

  test('each lane has partitions of its own, which come into being when they are needed', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 2 })
    const key = keyIn(1, 2)
    assert.deepEqual(await lanesOf(process), ['0 normal', '1 normal'])
    assert.equal((await process.publish(['a'], { key, priority: 'low' }))[0]?.partition, 5)
    assert.equal((await process.publish(['b'], { key, priority: 'high' }))[0]?.partition, 3)
    assert.equal((await process.publish(['c'], { key }))[0]?.partition, 1)
    const lanes = await lanesOf(process)
    for (const expected of ['0 normal', '1 normal', '3 high', '5 low']) assert.ok(lanes.includes(expected), expected)
    const [peeked] = await process.admin.peek(TOPIC, { partition: 3, fromOffset: 0, limit: 1 })
    assert.equal(peeked?.message.event.data, 'b')
  })

  test('a subscription that is older than a lane gets all of it', async (world) => {
    const process = await world.process()
    await process.topic()
    const sources = [await process.subscribe(), await process.subscribe({ subscription: 'second' })]
    await publishIn(process, 'high', 2)
    await publishIn(process, 'low', 2)
    for (const source of sources) assert.equal(dataOf(await source.drain()).length, 4)
  })

  test('a subscription that is younger starts in every lane where it is told to', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription()
    for (const priority of LANES) await publishIn(process, priority, 2)
    const latest = await process.subscribe({ subscription: 'latest' })
    const earliest = await process.subscribe({ subscription: 'earliest', start: { at: 'earliest' } })
    assert.deepEqual(await latest.pullNow(), [])
    assert.equal(dataOf(await earliest.drain()).length, 6)
    await publishIn(process, 'high', 1)
    assert.equal(dataOf(await latest.drain()).length, 1)
    assert.equal((await process.state('latest')).positions.length, (await process.topicState()).partitions.length)
  })

  test('a process that opens later finds the lanes, and shares them', async (world) => {
    const [one, other] = [await world.process(), await world.process()]
    await one.topic()
    const source = await one.subscribe()
    const elsewhere = await other.source()
    await publishIn(one, 'high', 2)
    await publishIn(other, 'high', 2)
    const grants = [
      await source.pullOne(),
      await elsewhere.pullOne(),
      ...(await (await world.process()).source().then((late) => late.drain())),
    ]
    assert.equal(new Set(dataOf(grants)).size, 4)
  })

  test('a waiting pull wakes for every lane', async (world) => {
    const [worker, publisher] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    for (const priority of LANES) {
      const waiting = source.pull()
      await worker.roundTrip()
      await publishIn(publisher, priority, 1)
      assert.equal(dataOf(await waiting).length, 1)
    }
  })

  test('the books count every lane: backlog, messages, limit, replay, purge', async (world) => {
    const process = await world.process()
    await process.topic({ maxBacklog: 6 })
    const source = await process.subscribe()
    for (const priority of LANES) await publishIn(process, priority, 2)
    assert.equal((await process.state()).backlog, 6)
    assert.equal((await process.topicState()).messages, 6)
    await assert.rejects(publishIn(process, 'high', 1), { name: 'AssertionError', message: /refused/ })
    assert.equal((await source.drain()).flatMap(({ messages }) => messages).length, 6)
    assert.equal((await process.state()).backlog, 0)
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.equal((await process.state()).backlog, 6)
    assert.equal(dataOf(await source.drain()).length, 6)
    assert.equal(await process.admin.purge(TOPIC), 6)
    await publishIn(process, 'low', 1)
    assert.equal(dataOf(await source.drain()).length, 1)
    assert.deepEqual(await process.admin.checkIntegrity(), [])
  })

  test('a queue deletes what is done, in every lane', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    for (const priority of LANES) await publishIn(process, priority, 2)
    await source.drain()
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 0)
  })

  test('a delayed message enters its lane', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['later'], { deliverAtMs: world.clock.now() + 100, priority: 'high' })
    await world.advance(100)
    assert.partialDeepStrictEqual(await source.pullOne(), { partition: 1 })
  })

  test('retries, returned messages and dead letters stay in their lane', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await publishIn(process, 'high', 1)
    await source.retry([await source.pullOne()], world.clock.now())
    await source.release([await source.pullOne()])
    const again = await source.pullOne()
    assert.partialDeepStrictEqual(again, { partition: 1, attempt: 2 })
    await source.dead([again])
    assert.partialDeepStrictEqual(await process.deadLetters(), [{ partition: 1, offset: 0 }])
    await process.admin.redrive(HERE, {})
    assert.partialDeepStrictEqual(await source.pullOne(), { partition: 1, attempt: 1 })
  })

  test('an id is known in all lanes', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'], { id: 'order-1', priority: 'high' })
    assert.equal((await process.publish(['b'], { id: 'order-1' }))[0]?.duplicate, true)
  })

  test('an ordered subscription owns lanes, and keeps the order within each', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 2 })
    const sources = [await process.subscribe({ ordered: true }), await (await world.process()).source()]
    for (const priority of LANES) {
      await process.publish(numbersTo(3), priorityOptions(priority, keyIn(0, 2)))
      await process.publish(numbersTo(3), priorityOptions(priority, keyIn(1, 2)))
    }
    const grants: Grant[] = []
    await world.eventually(async () => {
      for (const source of sources) grants.push(...(await source.drain()))
      assert.equal(dataOf(grants).length, 18)
    })
    for (const partition of numbersTo(6)) {
      assert.deepEqual(dataOf(grants.filter((grant) => grant.partition === partition)), [0, 1, 2])
    }
  })

  test('a key that fails in one lane is set aside there', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe({ ordered: true })
    await process.publish(['a', 'b'], { key: 'k', priority: 'high' })
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 100, 'k')
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    const grants = await source.drain()
    assert.deepEqual(dataOf(grants), ['a', 'b'])
    for (const grant of grants) assert.equal(grant.partition, 1)
  })
}

function priorityOptions(priority: Priority, key?: string) {
  return { ...(key !== undefined && { key }), ...(priority !== 'normal' && { priority }) }
}

let messagesMade = 0

/** The data of the messages say which lane they are of, and which place they have in it. */
async function publishIn(process: TestProcess, priority: Priority, count: number): Promise<void> {
  const data = numbersTo(count).map(() => `${priority}-${++messagesMade}`)
  await process.publish(data, priorityOptions(priority))
}

function lane(grants: readonly Grant[], priority: Priority): readonly string[] {
  return (dataOf(grants) as string[]).filter((data) => data.startsWith(priority))
}

function assertShare(grants: readonly Grant[], priority: Priority, expected: number): void {
  const count = lane(grants, priority).length
  assert.ok(Math.abs(count - expected) <= TOLERANCE * expected, `${count} are ${priority}, not about ${expected}`)
}

function assertInOrder(grants: readonly Grant[], priority: Priority): void {
  const numbers = lane(grants, priority).map((data) => Number(data.split('-').at(-1)))
  assert.deepEqual(
    numbers,
    numbers.toSorted((one, other) => one - other),
  )
}

async function lanesOf(process: TestProcess): Promise<readonly string[]> {
  const { partitions } = await process.topicState()
  return partitions.map(({ partition, priority }) => `${partition} ${priority}`)
}

async function pullSome(source: TestSource, count: number): Promise<readonly Grant[]> {
  const grants: Grant[] = []
  while (grants.length < count) grants.push(await source.pullOne())
  return grants
}
