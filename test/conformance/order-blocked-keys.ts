/** Guarantee 4, `blocks`: what follows a dead letter that blocks its key waits until an operator has decided. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import { KEY, OTHER_KEY, withKey } from './order-situations.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const orderBlockedKeys: Guarantee = (test) => {
  test('its key waits, the others go on, and operators see it', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b', 'c'])
    await process.publish(['x'], { key: OTHER_KEY })
    assert.deepEqual(dataOf(await source.drain()), ['x'])
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 1, deadLetters: 1, parked: 2, leased: 0 })
    const [letter] = await process.deadLetters()
    assert.partialDeepStrictEqual(letter, { blocking: true, reason: 'attempts', event: { data: 'a' } })
  })

  test('what is published later and set aside waits, too', async (world) => {
    const { process, source } = await blocked(world, ['a'])
    await process.publish(['b', 'c'], { key: KEY })
    await source.park(await source.pullAll(), 'chain', KEY)
    assert.deepEqual(await source.pullNow(), [])
    assert.equal((await process.state()).parked, 2)
  })

  test('time does not free it', async (world) => {
    const { source } = await blocked(world, ['a', 'b'])
    await world.outliveLeases()
    assert.deepEqual(await source.pullNow(), [])
  })

  test('redriven, it goes first, and what was set aside follows', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b', 'c'])
    assert.equal(await process.admin.redrive(HERE, {}), 1)
    assert.equal((await process.state()).blockedKeys, 0)
    const first = await source.pullAll()
    assert.deepEqual(dataOf(first), ['a'])
    assert.partialDeepStrictEqual(first[0], { attempt: 1, failures: [], crashes: 0 })
    await source.ack(first)
    assert.deepEqual(dataOf(await source.drain()), ['b', 'c'])
  })

  test('redriven together with an earlier one of its key that did not block, all are delivered in order', async (world) => {
    const { process, source } = await withKey(world, ['a'])
    await source.dead([await source.pullOne()], { key: KEY })
    await process.publish(['b', 'c'], { key: KEY })
    await source.blockWithFollowers(await source.pullAll(), KEY)
    assert.equal(await process.admin.redrive(HERE, {}), 2)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b', 'c'])
    assert.partialDeepStrictEqual(await process.state(), { parked: 0, blockedKeys: 0, deadLetters: 0 })
  })

  test('redriven and dead again, it blocks again', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await process.admin.redrive(HERE, { ids: [(await process.deadLetters())[0]!.id] })
    await source.dead([await source.pullOne()], { key: KEY, blocks: true })
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 1, deadLetters: 1, parked: 1 })
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
  })

  test('redriven and failing, it still goes first', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await process.admin.redrive(HERE, {})
    await source.retry([await source.pullOne()], world.clock.now() + 100, KEY)
    assert.deepEqual(await source.pullNow(), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
  })

  test('deleted, it is skipped', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b', 'c'])
    const waiting = source.pull()
    await process.roundTrip()
    assert.equal(await process.admin.deleteDeadLetters(HERE, [(await process.deadLetters())[0]!.id]), 1)
    const next = await waiting
    assert.equal(dataOf(next)[0], 'b')
    await source.ack(next)
    await source.drain()
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 0, deadLetters: 0, parked: 0, leased: 0 })
  })

  test('deleted with all others, every key goes on', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await process.publish(['x', 'y'], { key: OTHER_KEY })
    await source.blockWithFollowers(await source.pull(), OTHER_KEY)
    assert.equal((await process.state()).blockedKeys, 2)
    assert.equal(await process.admin.deleteDeadLetters(HERE), 2)
    assert.deepEqual(dataOf(await source.drain()).toSorted(), ['b', 'y'])
  })

  test('a retry that dies with it blocks, too', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.dead([await source.pullOne()], { key: KEY, blocks: true })
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 1, retrying: 0, parked: 2 })
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b', 'c'])
  })

  test('one that blocks nobody does not hold back its key when it is redriven', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    await source.dead([await source.pullOne()], { key: KEY })
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 0, deadLetters: 1 })
    assert.deepEqual(dataOf(await source.drain()), ['b'])
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await source.drain()), ['a'])
  })

  test('a new owner is told of the key, and takes nothing of it', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await source.close()
    await process.publish(['c'], { key: KEY })
    const grants = await (await process.source()).pullAll()
    assert.deepEqual(dataOf(grants), ['c'])
    assert.deepEqual(
      grants[0]?.takeover?.map(({ key, lastOffset }) => [key, lastOffset]),
      [[KEY, 1]],
    )
  })

  test('a new owner is told of the key also when nothing waits behind the dead letter', async (world) => {
    const { process, source } = await blocked(world, ['a'])
    await source.close()
    await process.publish(['b'], { key: KEY })
    const heir = await process.source()
    const grants = await heir.pullAll()
    assert.deepEqual(
      grants[0]?.takeover?.map(({ key }) => key),
      [KEY],
    )
    await heir.park(grants, 'chain', KEY)
    assert.deepEqual(await heir.pullNow(), [])
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await heir.drain()), ['a', 'b'])
  })

  test('a replay from it or from before it ends the block, and the dead letter stays', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 0, deadLetters: 1, parked: 0, backlog: 2 })
    assert.equal((await process.deadLetters())[0]?.blocking, false)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b'])
  })

  test('a replay from behind it does not end the block', async (world) => {
    const { process, source } = await blocked(world, ['a', 'b'])
    await process.admin.seek(HERE, { offset: 1 })
    assert.partialDeepStrictEqual(await process.state(), { blockedKeys: 1, deadLetters: 1, parked: 0, backlog: 1 })
    const again = await source.pullAll()
    assert.deepEqual(dataOf(again), ['b'])
    await source.park(again, 'chain', KEY)
    assert.deepEqual(await source.pullNow(), [])
    await process.admin.deleteDeadLetters(HERE)
    assert.deepEqual(dataOf(await source.drain()), ['b'])
  })
}

/** A subscription whose first message of a key is a dead letter that blocks it; the others are set aside behind it. */
async function blocked(world: World, data: readonly unknown[]): Promise<{ process: TestProcess; source: TestSource }> {
  const made = await withKey(world, data)
  await made.source.blockWithFollowers(await made.source.pull(), KEY)
  return made
}
