/**
 * Guarantee 4, what waits for its key: messages that were set aside form a chain for each key, of which only the first
 * becomes due.
 */
import assert from 'node:assert/strict'
import type { Grant, Settlement } from '../../src/engine.ts'
import { dataOf, numbersTo } from './messages.ts'
import { KEY, OTHER_KEY, withKey } from './order-situations.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

// More than an engine lets go on at once.
const LONG_CHAIN = 200

export const orderChains: Guarantee = (test) => {
  test('nothing of a key comes before the retry that it waits for; then the rest, in order', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { retrying: 1, parked: 2, leased: 0, backlog: 0 })
    await world.advance(100)
    const [first, ...none] = await source.pullAll()
    assert.deepEqual(none, [])
    assert.deepEqual(dataOf([first!]), ['a'])
    assert.partialDeepStrictEqual(first, { attempt: 2, setAside: true, crashes: 0, isolated: false })
    await source.ack([first!])
    const rest = await source.drain()
    assert.deepEqual(dataOf(rest), ['b', 'c'])
    for (const grant of rest) {
      assert.equal(grant.messages.length, 1)
      assert.partialDeepStrictEqual(grant, { attempt: 1, setAside: true, failures: [] })
    }
    assert.partialDeepStrictEqual(await process.state(), { retrying: 0, parked: 0, leased: 0 })
  })

  test('a first delivery was not set aside', async (world) => {
    const { source } = await withKey(world, ['a'])
    assert.equal((await source.pullOne()).setAside, false)
  })

  test('what is published later and set aside waits behind what its key has', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 100, KEY)
    await process.publish(['c', 'd'], { key: KEY })
    await source.park(await source.pullAll(), 'chain', KEY)
    assert.deepEqual(await source.pullNow(), [])
    assert.equal((await process.state()).parked, 3)
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b', 'c', 'd'])
  })

  test('set aside behind nothing, a message is due at once, as the same attempt', async (world) => {
    const { source } = await withKey(world, ['a', 'b'])
    await source.park([await source.pullOne()], 'chain', KEY)
    const again = await source.pullOne()
    assert.deepEqual(dataOf([again]), ['a'])
    assert.partialDeepStrictEqual(again, { attempt: 1, setAside: true, failures: [] })
  })

  test('a key that has been worked off begins anew', async (world) => {
    const { source } = await withKey(world, ['a', 'b', 'c'])
    await source.retry([await source.pullOne()], world.clock.now(), KEY)
    await source.ack([await source.pullOne()])
    const next = await source.pullOne()
    assert.deepEqual(dataOf([next]), ['b'])
    await source.park([next], 'chain', KEY)
    assert.equal(
      (await source.pullAll()).some(({ setAside }) => setAside),
      true,
    )
  })

  test('a retry that fails again keeps the others waiting', async (world) => {
    const { source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    for (let attempt = 2; attempt < 5; attempt++) {
      const grants = await source.pullAll()
      assert.deepEqual(dataOf(grants), ['a'])
      assert.equal(grants[0]?.attempt, attempt)
      assert.equal(grants[0]?.failures.length, attempt - 1)
      await source.retry(grants, world.clock.now(), KEY)
    }
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
  })

  test('a message that was set aside and fails in its turn holds back the next ones only', async (world) => {
    const { source } = await withKey(world, ['a', 'b', 'c', 'd'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.ack(await source.pullAll())
    const next = await source.pullAll()
    assert.equal(dataOf(next)[0], 'b')
    await source.retryWithFollowers(next, world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullAll(), [])
    await world.advance(100)
    const rest = await source.drain()
    assert.deepEqual(dataOf(rest), ['b', 'c', 'd'])
    assert.deepEqual(
      rest.map(({ attempt }) => attempt),
      [2, 1, 1],
    )
  })

  test('a dead letter that blocks nothing lets the key go on', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.dead([await source.pullOne()], { key: KEY })
    assert.partialDeepStrictEqual(await process.state(), { deadLetters: 1, blockedKeys: 0 })
    assert.equal((await process.deadLetters())[0]?.blocking, false)
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  test('a message given back goes to the front of its chain', async (world) => {
    const { source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    const first = await source.pullAll()
    await source.release(first)
    const again = await source.pullAll()
    assert.deepEqual(dataOf(again), ['a'])
    assert.partialDeepStrictEqual(again[0], { attempt: 2, setAside: true })
    await source.ack(again)
    const next = await source.pullAll()
    await source.release(next)
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  test('what has become due waits again when the one before it fails', async (world) => {
    const { source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.ack([await source.pullOne()])
    const second = await source.pullOne()
    assert.deepEqual(dataOf([second]), ['b'])
    await source.retry([second], world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  test('what has become due waits again behind one that is parked, given back or blocks its key', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c', 'd'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.ack([await source.pullOne()])
    await source.park([await source.pullOne()], world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    await source.release([await source.pullOne()])
    const again = await source.pullOne()
    assert.deepEqual(dataOf([again]), ['b'])
    await source.dead([again], { key: KEY, blocks: true })
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 1, parked: 2 })
  })

  test('released behind one that failed, a message waits for it', async (world) => {
    const { source, second, third } = await withTwoOut(world)
    const retried = source.retried(1, second, world.clock.now() + 20_000, KEY)
    const settlements: Settlement[] = [{ lease: second.lease, acked: [], exceptions: [retried] }]
    if (third) settlements.push({ lease: third.lease, acked: [], exceptions: [{ offset: 2, kind: 'release' }] })
    await source.settle(settlements)
    assert.deepEqual(await source.pullAll(), [])
    await world.advance(20_000)
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  for (const end of ['close', 'crash'] as const) {
    test(`by a ${end} given back behind one that failed, a message waits for it`, async (world) => {
      const { process, source, second } = await withTwoOut(world)
      await source.retry([second], world.clock.now() + 20_000, KEY)
      await process[end]()
      await world.outliveLeases()
      const heir = await (await world.process()).source()
      assert.deepEqual(await heir.pullAll(), [])
      await world.advance(20_000)
      assert.deepEqual(dataOf(await heir.drain()), ['b', 'c'])
    })
  }

  test('a long chain comes in order, to the last', async (world) => {
    const { process, source } = await withKey(world, numbersTo(LONG_CHAIN))
    await source.retryWithFollowers(await source.pullAll(), world.clock.now(), KEY)
    assert.deepEqual(dataOf(await source.drain()), numbersTo(LONG_CHAIN))
    assert.partialDeepStrictEqual(await process.state(), { parked: 0, retrying: 0, leased: 0, returned: 0 })
    assert.deepEqual(await process.admin.checkIntegrity(), [])
  })

  test('keys do not wait for each other', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    const nowMs = world.clock.now()
    await source.retryWithFollowers(await source.pull(), nowMs + 1_000, KEY)
    await process.publish(['x', 'y'], { key: OTHER_KEY })
    await source.retryWithFollowers(await source.pull(), nowMs + 100, OTHER_KEY)
    await process.publish(['without a key'])
    assert.deepEqual(dataOf(await source.drain()), ['without a key'])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['x', 'y'])
    await world.advance(900)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
  })

  test('a waiting pull wakes when the next of a key becomes due', async (world) => {
    const { source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    const first = await source.pullOne()
    const waiting = source.pull()
    await source.ack([first])
    assert.deepEqual(dataOf(await waiting), ['b'])
  })

  test('set aside until a time, it comes then, with nothing counted', async (world) => {
    const { process, source } = await withKey(world, ['a'])
    await source.retry([await source.pullOne()], world.clock.now(), KEY)
    await source.park([await source.pullOne()], world.clock.now() + 200, KEY)
    assert.partialDeepStrictEqual(await process.state(), { parked: 1, retrying: 0, leased: 0 })
    await world.advance(199)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(1)
    const again = await source.pullOne()
    assert.partialDeepStrictEqual(again, { attempt: 2, setAside: true, crashes: 0 })
    assert.equal(again.failures.length, 1)
  })

  test('set aside until a time, it keeps its key waiting', async (world) => {
    const { source } = await withKey(world, ['a', 'b', 'c'])
    const dueAtMs = world.clock.now() + 200
    await source.except(await source.pull(), (offset) => {
      return { offset, kind: 'park', until: offset === 0 ? dueAtMs : 'chain', key: KEY }
    })
    await world.advance(100)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.pullAll()), ['a'])
  })

  test('an unordered subscription can set messages aside until a time, too', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b', 'c'])
    const source = await process.subscribe()
    const [grant] = await source.pull()
    const park = { offset: 1, kind: 'park', until: world.clock.now() + 100 } as const
    await source.settle([{ lease: grant!.lease, acked: [0, 1, 2, 3], exceptions: [park] }])
    assert.partialDeepStrictEqual(await process.state(), { parked: 1, leased: 0 })
    const waiting = source.pull()
    await world.advance(100)
    const [again] = await waiting
    assert.deepEqual(dataOf([again!]), ['b'])
    assert.partialDeepStrictEqual(again, { attempt: 1, setAside: true, failures: [] })
  })

  test('what overflowed waits until its key is freed, and then comes in order', async (world) => {
    const { process, source } = await withKey(world, ['running', 'b', 'c'])
    const running = await source.pullOne()
    await source.park(await source.pullAll(), 'freed', KEY)
    await process.publish(['d'], { key: KEY })
    await source.park(await source.pullAll(), 'chain', KEY)
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { parked: 3, leased: 1 })
    await source.ack([running], [KEY])
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c', 'd'])
  })

  test('a key is freed by the settlement that says so, and by no other', async (world) => {
    const { process, source } = await withKey(world, ['running', 'b'])
    await process.publish(['of another key'], { key: OTHER_KEY })
    const running = await source.pullOne()
    await source.park([await source.pullOne()], 'freed', KEY)
    await source.ack([running])
    const other = await source.pullAll()
    assert.deepEqual(dataOf(other), ['of another key'])
    await source.ack(other, [KEY, 'a key that has nothing'])
    assert.deepEqual(dataOf(await source.drain()), ['b'])
  })

  test('a queue keeps what was set aside until it is done', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe({ ordered: true })
    await process.publish(['a', 'b'], { key: KEY })
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await process.publish(['c'], { key: OTHER_KEY })
    await source.ack(await source.pull({ messagesMax: 2 }))
    await process.admin.applyRetention()
    assert.ok(dataOf(await source.drain()).includes('b'))
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 0)
  })

  test('a fenced lease sets nothing aside', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    const grants = await source.pull()
    process.stall()
    await world.outliveLeases()
    const heir = await (await world.process()).source()
    await world.eventually(async () => assert.deepEqual(dataOf(await heir.drain()), ['a', 'b']))
    const leases = grants.map(({ lease }) => lease)
    assert.deepEqual(await source.retryWithFollowers(grants, world.clock.now(), KEY), leases)
    process.goOn()
    assert.partialDeepStrictEqual(await process.state(), { parked: 0, retrying: 0, leased: 0 })
  })

  test('two keys of one partition that fail in one settlement have a chain each', async (world) => {
    const { process, source } = await withKey(world, ['a'])
    await process.publish(['x'], { key: OTHER_KEY })
    await process.publish(['b'], { key: KEY })
    await process.publish(['y'], { key: OTHER_KEY })
    const dueAtMs = world.clock.now() + 100
    await source.except(await source.pullAll(), (offset, grant) => {
      const key = offset % 2 === 0 ? KEY : OTHER_KEY
      return offset < 2
        ? source.retried(offset, grant, dueAtMs + offset * 100, key)
        : { offset, kind: 'park', until: 'chain', key }
    })
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['x', 'y'])
    assert.deepEqual(await process.admin.checkIntegrity(), [])
  })
}

/** The first of a chain is done, the next one is out, and the third one, too, if the engine lets it be. */
async function withTwoOut(
  world: World,
): Promise<{ process: TestProcess; source: TestSource; second: Grant; third: Grant | undefined }> {
  const { process, source } = await withKey(world, ['a', 'b', 'c'])
  await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
  await source.ack([await source.pullOne()])
  const [second, third] = await source.pullAll()
  return { process, source, second: second!, third }
}
