/** Corners of order that lie beyond what the conformance suite asks of every engine. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Grant } from '../../../src/engine.ts'
import { dataOf, numbersTo, SUBSCRIPTION, TOPIC } from '../../conformance/messages.ts'
import type { TestProcess } from '../../conformance/test-process.ts'
import type { TestSource } from '../../conformance/test-source.ts'
import { World } from '../../conformance/world.ts'
import { memoryHarness } from '../memory-harness.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const KEY = 'user-1'
const PROMOTED = 64

interface Given {
  readonly world: World
  readonly process: TestProcess
  readonly source: TestSource
}

function chainTest(title: string, data: readonly unknown[], body: (given: Given) => Promise<void>): void {
  test(title, async () => {
    const world = await World.create(memoryHarness)
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe({ ordered: true })
    await process.publish(data, { key: KEY })
    await body({ world, process, source })
    await world.end()
  })
}

chainTest(
  'of a long chain so many are let go at once, and the next when those are done',
  numbersTo(200),
  async (given) => {
    const { source, process, world } = given
    await source.retryWithFollowers(await source.pullAll(), world.clock.now(), KEY)
    await source.ack(await source.pullAll())
    assert.equal((await process.state()).parked, 199 - PROMOTED)
    const promoted = await source.pullAll()
    assert.deepEqual(dataOf(promoted), numbersTo(200).slice(1, 1 + PROMOTED))
    await source.ack(promoted.slice(0, -1))
    assert.deepEqual(await source.pullNow(), [])
    await source.ack(promoted.slice(-1))
    assert.equal(dataOf(await source.pullAll())[0], 1 + PROMOTED)
  },
)

chainTest(
  'what was let go and is in nobody’s hands waits again when one before it fails',
  numbersTo(4),
  async (given) => {
    const { source, world } = given
    const first = await promoted(given)
    assert.deepEqual(dataOf([first]), [1])
    await source.retry([first], world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.pullAll()), [1])
  },
)

for (const isFirstReleased of [true, false]) {
  const when = isFirstReleased ? 'before' : 'after'
  chainTest(`released ${when} the one before it fails, a message waits for it again`, numbersTo(4), async (given) => {
    const { source, world } = given
    const [failing, behind] = [await promoted(given), await source.pullOne()]
    if (isFirstReleased) await source.release([behind])
    await source.retry([failing], world.clock.now() + 100, KEY)
    if (!isFirstReleased) await source.release([behind])
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.pullAll()), [1])
  })
}

chainTest('with its session a message is lost behind a retry, and comes after it', numbersTo(3), async (given) => {
  const { process, source, world } = given
  const [failing] = [await promoted(given), await source.pullOne()]
  await source.retry([failing], world.clock.now() + 60_000, KEY)
  await process.crash()
  await world.outliveLeases()
  const heir = await (await world.process()).source()
  assert.deepEqual(await heir.pullNow(), [])
  await world.advance(60_000)
  assert.deepEqual(dataOf(await heir.drain()), [1, 2])
})

chainTest(
  'a message that waits for a limit does not pass a dead letter that blocks its key',
  numbersTo(3),
  async (given) => {
    const { process, source, world } = given
    const dueAtMs = world.clock.now() + 100
    const [grant] = await source.pull()
    await source.except([grant!], (offset, { attempt }) => {
      if (offset > 0) return { offset, kind: 'park', until: offset === 1 ? dueAtMs : 'chain', key: KEY }
      const failure = { attempt, atMs: 0, name: 'Error', message: 'given up' }
      return { offset, kind: 'dead', reason: 'attempts', failure, key: KEY, blocks: true }
    })
    await world.advance(200)
    assert.deepEqual(await source.pullNow(), [])
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await source.drain()), [0, 1, 2])
  },
)

chainTest('of two that block a key, the later one redriven waits for the first', numbersTo(3), async (given) => {
  const { process, source } = given
  await source.except(await source.pull(), (offset, { attempt }) => {
    const failure = { attempt, atMs: 0, name: 'Error', message: 'given up' }
    if (offset === 2) return { offset, kind: 'park', until: 'chain', key: KEY }
    return { offset, kind: 'dead', reason: 'attempts', failure, key: KEY, blocks: true }
  })
  const [first, second] = await process.deadLetters()
  await process.admin.redrive(HERE, { ids: [second!.id] })
  assert.deepEqual(await source.pullNow(), [])
  await process.admin.redrive(HERE, { ids: [first!.id] })
  assert.deepEqual(dataOf(await source.drain()), [0, 1, 2])
})

chainTest('redriven over time, dead letters of a key come in its order', numbersTo(3), async (given) => {
  const { process, source, world } = given
  const grants = await source.pull()
  await source.dead(grants, { key: KEY })
  await process.admin.redrive(HERE, { perSecond: 1 })
  assert.deepEqual(dataOf(await source.pullAll()), [0])
  await world.advance(2_000)
  assert.deepEqual(await source.pullNow(), [])
})

chainTest('without order nothing waits for a key any more', numbersTo(3), async (given) => {
  const { process, source, world } = given
  await source.retryWithFollowers(await source.pull(), world.clock.now() + 60_000, KEY)
  const waiting = source.pull()
  await process.roundTrip()
  await process.subscription({ ordered: false })
  assert.deepEqual(dataOf([...(await waiting), ...(await source.pullAll())]), [1, 2])
})

chainTest('a key is free also by a settlement whose lease a cancellation has ended', [], async (given) => {
  const { process, source } = given
  await process.publish(['running'], { key: KEY, id: 'a' })
  await process.publish(['b'], { key: KEY })
  const running = await source.pullOne()
  await source.park([await source.pullOne()], 'freed', KEY)
  await process.admin.cancel(TOPIC, 'a')
  assert.deepEqual(await source.ack([running], [KEY]), [])
  assert.deepEqual(dataOf(await source.drain()), ['b'])
})

chainTest('a position moved into what runs lets go on what waited behind it', numbersTo(3), async (given) => {
  const { process, source } = given
  const running = await source.pull({ messagesMax: 2 })
  await process.admin.seek(HERE, { offset: 2 })
  await source.park(await source.pull(), 'freed', KEY)
  await process.admin.seek(HERE, { offset: 1 })
  assert.equal(source.lost.includes(running[0]!.lease), true)
  assert.deepEqual(dataOf(await source.drain()), [0, 1, 2])
})

chainTest('a lane that comes into being goes to those who came first, as the others did', ['a'], async (given) => {
  const { process, source, world } = given
  const held = await source.pullAll()
  const other = await (await world.process()).source()
  await process.publish(['urgent'], { priority: 'high' })
  assert.deepEqual(await other.pullNow(), [])
  assert.deepEqual(dataOf(await source.pullAll()), ['urgent'])
  await source.ack(held)
})

/** The first message is done; the ones behind it are let go, and the next one is out. */
async function promoted({ source, world }: Given): Promise<Grant> {
  await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
  await source.ack(await source.pullAll())
  return source.pullOne()
}
