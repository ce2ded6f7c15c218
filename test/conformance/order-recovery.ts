/** Guarantee 4, when owners come and go: chains outlive their owner, and the next one learns of them. */
import assert from 'node:assert/strict'
import { dataOf } from './messages.ts'
import { afterCrash, KEY, OTHER_KEY, SECOND_CHANCE, SUSPECTS_AT_ONCE, withKey } from './order-situations.ts'
import type { Guarantee } from './suite.ts'

export const orderRecovery: Guarantee = (test) => {
  test('a new owner is told of every chain, from its first message to its last', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 60_000, KEY)
    await process.publish(['x'], { key: OTHER_KEY })
    await source.retry(await source.pull(), world.clock.now() + 60_000, OTHER_KEY)
    await process.publish(['done'], { key: 'user-3' })
    await source.drain()
    await source.close()
    await process.publish(['new'])
    const heir = await (await world.process()).source()
    const [grant] = await heir.pull()
    assert.deepEqual(
      grant?.takeover?.toSorted((one, other) => one.firstOffset - other.firstOffset),
      [
        { key: KEY, firstOffset: 0, lastOffset: 2 },
        { key: OTHER_KEY, firstOffset: 3, lastOffset: 3 },
      ],
    )
  })

  test('a retry keeps its time and its key waiting under a new owner', async (world) => {
    const { source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 1_000, KEY)
    await source.close()
    const heir = await (await world.process()).source()
    assert.deepEqual(await heir.pullNow(), [])
    await world.advance(1_000)
    assert.deepEqual(dataOf(await heir.pullAll()), ['a'])
  })

  test('parked behind a message that ran, the first of a chain is due once the owner has gone', async (world) => {
    const { source } = await withKey(world, ['running', 'b', 'c'])
    await source.pullOne()
    await source.park(await source.pullAll(), 'freed', KEY)
    const heir = await (await world.process()).source()
    await source.close()
    const grants = await heir.drain()
    assert.deepEqual(dataOf(grants), ['running', 'b', 'c'])
    assert.deepEqual(grants[0]?.takeover, [{ key: KEY, firstOffset: 1, lastOffset: 2 }])
    assert.equal(grants[0]?.setAside, false)
  })

  test('it is due also when the owner has died, behind what it had', async (world) => {
    const { process, source } = await withKey(world, ['running', 'b', 'c'], SECOND_CHANCE)
    await source.pullOne()
    await source.park(await source.pullAll(), 'freed', KEY)
    const heir = await (await afterCrash(process)).source()
    const grants = await heir.drain()
    assert.deepEqual(dataOf(grants), ['running', 'b', 'c'])
    assert.partialDeepStrictEqual(grants[0], { crashes: 1, setAside: false })
    assert.partialDeepStrictEqual(grants[1], { crashes: 0, setAside: true })
  })

  test('while a suspect holds back its partition, the chain behind it waits, too', async (world) => {
    const { process, source } = await withKey(world, ['running', 'b'], SUSPECTS_AT_ONCE)
    await source.pullOne()
    await source.park(await source.pullAll(), 'freed', KEY)
    const grants = await (await (await afterCrash(process)).source()).drain()
    assert.deepEqual(dataOf(grants), ['running', 'b'])
    assert.equal(grants[0]?.isolated, true)
  })

  test('a retry that a dead owner ran keeps its place and its attempt; the crash is counted', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'], SECOND_CHANCE)
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.pullOne()
    const heir = await (await afterCrash(process)).source()
    const grants = await heir.pullAll()
    assert.deepEqual(dataOf(grants), ['a'])
    assert.partialDeepStrictEqual(grants[0], { attempt: 2, crashes: 1, isolated: false, setAside: true })
    assert.equal(grants[0]?.failures.length, 1)
    assert.deepEqual(grants[0]?.takeover, [{ key: KEY, firstOffset: 0, lastOffset: 1 }])
    await heir.ack(grants)
    assert.deepEqual(dataOf(await heir.drain()), ['b'])
  })

  test('several of a chain that were out come back in order, one after the other', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c', 'd'], SUSPECTS_AT_ONCE)
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.ack([await source.pullOne()])
    const out = await source.pullAll()
    assert.equal(dataOf(out)[0], 'b')
    const grants = await (await (await afterCrash(process)).source()).drain()
    assert.deepEqual(dataOf(grants), ['b', 'c', 'd'])
    assert.partialDeepStrictEqual(grants[0], { attempt: 1, crashes: 1, isolated: true })
    for (const [place, { isolated }] of grants.entries()) assert.equal(isolated, place < out.length)
  })

  test('the first of a chain that dies of crashes lets the key go on', async (world) => {
    const { process, source } = await withKey(world, ['poison', 'b'], SUSPECTS_AT_ONCE)
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    await source.pullOne()
    const second = await afterCrash(process)
    assert.partialDeepStrictEqual(await (await second.source()).pullOne(), { isolated: true, crashes: 1 })
    const last = await afterCrash(second)
    assert.deepEqual(dataOf(await (await last.source()).drain()), ['b'])
    assert.partialDeepStrictEqual(await last.deadLetters(), [{ reason: 'crashed', event: { data: 'poison' } }])
    assert.partialDeepStrictEqual(await last.state(), { parked: 0, retrying: 0, blockedKeys: 0 })
  })

  test('what is published while nobody owns the partition comes with the takeover', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 60_000, KEY)
    await source.close()
    await process.publish(['c'], { key: KEY })
    const grants = await (await process.source()).pullAll()
    assert.deepEqual(dataOf(grants), ['c'])
    assert.deepEqual(grants[0]?.takeover, [{ key: KEY, firstOffset: 0, lastOffset: 1 }])
  })

  test('nobody is told of a chain that has been worked off', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now(), KEY)
    assert.equal((await source.drain()).length, 2)
    await source.close()
    await process.publish(['c'], { key: KEY })
    assert.deepEqual((await (await process.source()).pullOne()).takeover, [])
  })

  test('a replay takes back what was set aside from there on, and leaves the rest', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b', 'c'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 100, KEY)
    await process.admin.seek({ topic: 'events', subscription: 'mail' }, { offset: 1 })
    assert.partialDeepStrictEqual(await process.state(), { retrying: 1, parked: 0, backlog: 2 })
    const again = await source.pullAll()
    assert.deepEqual(dataOf(again), ['b', 'c'])
    await source.park(again, 'chain', KEY)
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), ['a', 'b', 'c'])
  })

  test('a purge takes with it what was set aside', async (world) => {
    const { process, source } = await withKey(world, ['a', 'b'])
    await source.retryWithFollowers(await source.pull(), world.clock.now() + 100, KEY)
    await process.admin.purge('events')
    await world.advance(100)
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { retrying: 0, parked: 0, leased: 0 })
    await process.publish(['new'], { key: KEY })
    const [grant] = await source.pull()
    await source.park([grant!], 'chain', KEY)
    assert.deepEqual(dataOf(await source.drain()), ['new'])
  })
}
