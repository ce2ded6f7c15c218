/** Guarantee 6: a message that kills its process is found and taken out; innocent ones beside it lose nothing. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

/** Whatever comes back from a lost session is a suspect at once. */
const SUSPECTS_AT_ONCE = 2
/** The default: what comes back is a suspect after the second loss. */
const SECOND_CHANCE = 3

export const crashIsolation: Guarantee = (test) => {
  test('what a lost session had comes back together, like any other, as long as a crash more would bury nobody', async (world) => {
    await crashWith(world, ['a', 'b', 'c'], SECOND_CHANCE)
    const source = await (await world.process()).source()
    const [grant, ...others] = await source.pull()
    assert.deepEqual(others, [])
    assert.deepEqual(dataOf([grant!]), ['a', 'b', 'c'])
    assert.partialDeepStrictEqual(grant, { isolated: false, attempt: 1, crashes: 1, failures: [] })
  })

  for (const { maxCrashes, suspectFrom, deadAt } of [
    { maxCrashes: 1, suspectFrom: 1, deadAt: 2 },
    { maxCrashes: 4, suspectFrom: 3, deadAt: 4 },
  ]) {
    test(`with maxCrashes ${maxCrashes}, a message is a suspect at ${suspectFrom} crashes and dead at ${deadAt}`, async (world) => {
      await crashWith(world, ['a'], maxCrashes)
      for (let crashes = 1; crashes < deadAt; crashes++) {
        const doomed = await world.process()
        const [grant] = await (await doomed.source()).pullNow()
        assert.partialDeepStrictEqual(grant, { crashes, isolated: crashes >= suspectFrom })
        await doomed.crash()
        await world.outliveLeases()
      }
      const last = await world.process()
      assert.deepEqual(await (await last.source()).pullNow(), [])
      assert.partialDeepStrictEqual(await last.state(), { deadLetters: 1, returned: 0 })
    })
  }

  test('what a lost session had comes back singly, marked as suspect, with the attempt unchanged', async (world) => {
    await crashWith(world, ['a', 'b', 'c'], SUSPECTS_AT_ONCE)
    const process = await world.process()
    const source = await process.source()
    const grants = await source.drain()
    assert.deepEqual(dataOf(grants).toSorted(), ['a', 'b', 'c'])
    for (const grant of grants) {
      assert.equal(grant.messages.length, 1)
      assert.partialDeepStrictEqual(grant, { isolated: true, attempt: 1, crashes: 1, failures: [] })
    }
  })

  test('at most one suspect is out per process, and another process may have another one', async (world) => {
    await crashWith(world, ['a', 'b', 'c'], SUSPECTS_AT_ONCE)
    const [one, other] = [await world.process(), await world.process()]
    const [source, elsewhere] = [await one.source(), await other.source()]
    const first = await source.pullAll()
    const second = await elsewhere.pullAll()
    assert.equal(first.length, 1)
    assert.equal(second.length, 1)
    await source.ack(first)
    assert.equal((await source.pullAll()).length, 1)
  })

  test('a grant holds messages of one crash count, and suspects do not keep the others waiting', async (world) => {
    await crashWith(world, ['a', 'b'], SECOND_CHANCE)
    const doomed = await world.process()
    await doomed.publish(['c', 'd'])
    await (await doomed.source()).pullAll()
    await doomed.crash()
    await world.outliveLeases()
    const last = await world.process()
    await last.publish(['e'])
    const grants = await (await last.source()).pullAll()
    assert.deepEqual(grants.map(({ crashes, isolated, messages }) => [crashes, isolated, messages.length]).toSorted(), [
      [0, false, 1],
      [1, false, 2],
      [2, true, 1],
    ])
  })

  test('a changed limit holds for messages that wait', async (world) => {
    await crashWith(world, ['a', 'b'], SECOND_CHANCE)
    const process = await world.process()
    const source = await process.subscribe({ maxCrashes: SUSPECTS_AT_ONCE })
    assert.partialDeepStrictEqual((await source.pullNow(1))[0], { isolated: true, crashes: 1 })
    await process.subscription({ maxCrashes: SECOND_CHANCE })
    assert.partialDeepStrictEqual((await source.pullNow(1))[0], { isolated: false, crashes: 1 })
  })

  test('a waiting pull wakes when the suspect that is out has been settled', async (world) => {
    await crashWith(world, ['a', 'b'], SUSPECTS_AT_ONCE)
    const process = await world.process()
    const source = await process.source()
    const first = await source.pullOne()
    const waiting = source.pull()
    await process.roundTrip()
    await source.ack([first])
    assert.equal((await waiting)[0]?.isolated, true)
  })

  test('suspects do not keep new messages waiting', async (world) => {
    await crashWith(world, ['a', 'b', 'c'], SUSPECTS_AT_ONCE)
    const process = await world.process()
    await process.publish(['new'])
    const source = await process.source()
    assert.ok(dataOf(await source.pullAll()).includes('new'))
  })

  test('the poison is buried at exactly its last crash, and the bystanders of all crashes before are delivered', async (world) => {
    await crashWith(world, ['innocent', 'poison', 'bystander'], SECOND_CHANCE)
    await crashAgain(world)
    const handled = await dieOfPoison(world)
    const last = await world.process()
    handled.push(...dataOf(await (await last.source()).drain()))
    assert.deepEqual(handled.toSorted(), ['bystander', 'innocent'])
    await assertOnlyPoisonDied(last, SECOND_CHANCE)
  })

  test('the poison is buried at exactly its last crash, too, when messages are handled one by one', async (world) => {
    await crashWith(world, ['innocent', 'poison', 'bystander'], SECOND_CHANCE)
    const handled = [...(await dieOfPoison(world)), ...(await dieOfPoison(world))]
    const last = await world.process()
    handled.push(...dataOf(await (await last.source()).drain()))
    assert.deepEqual(handled.toSorted(), ['bystander', 'innocent'])
    await assertOnlyPoisonDied(last, SECOND_CHANCE)
  })

  test('a message that was not isolated is no dead letter, however often its sessions are lost', async (world) => {
    await crashWith(world, ['a', 'b', 'c'], 10)
    const doomed = await world.process()
    await (await doomed.source()).pullAll()
    await doomed.subscription({ maxCrashes: 1 })
    await doomed.crash()
    await world.outliveLeases()
    const process = await world.process()
    const grants = await (await process.source()).drain()
    assert.deepEqual(dataOf(grants).toSorted(), ['a', 'b', 'c'])
    for (const grant of grants) assert.partialDeepStrictEqual(grant, { isolated: true, crashes: 2 })
    assert.equal((await process.state()).deadLetters, 0)
  })

  test('innocent messages keep their attempts: a retry that was leased beside the poison is still the second', async (world) => {
    await crashWithRetry(world)
    const grants = await (await (await world.process()).source()).pullAll()
    const flaky = grants.find((grant) => grant.messages[0]?.event.data === 'flaky')
    assert.partialDeepStrictEqual(flaky, { attempt: 2, crashes: 1, isolated: false })
    assert.equal(flaky?.failures.length, 1)
  })

  test('retries become suspects by the same rule, and die by it', async (world) => {
    await crashWithRetry(world)
    await crashAgain(world)
    const doomed = await world.process()
    const source = await doomed.source()
    for (let grant = await source.pullOne(); ; grant = await source.pullOne()) {
      assert.partialDeepStrictEqual(grant, { crashes: 2, isolated: true })
      if (grant.attempt === 2) break
      await source.ack([grant])
    }
    await doomed.crash()
    await world.outliveLeases()
    const last = await world.process()
    await (await last.source()).drain()
    const letters = await last.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 10 })
    assert.deepEqual(
      letters.map(({ event, reason, attempts, crashes }) => [event?.data, reason, attempts, crashes]),
      [['flaky', 'crashed', 2, SECOND_CHANCE]],
    )
  })

  test('a released suspect is still a suspect', async (world) => {
    await crashWith(world, ['a'], SUSPECTS_AT_ONCE)
    const source = await (await world.process()).source()
    await source.release([await source.pullOne()])
    assert.partialDeepStrictEqual(await source.pullOne(), { isolated: true, crashes: 1, attempt: 1 })
  })

  test('a suspect that fails in the ordinary way is retried in the ordinary way', async (world) => {
    await crashWith(world, ['a'], SUSPECTS_AT_ONCE)
    const source = await (await world.process()).source()
    await source.retry([await source.pullOne()], world.clock.now())
    const again = await source.pullOne()
    assert.partialDeepStrictEqual(again, { attempt: 2, crashes: 0, isolated: false })
    assert.equal(again.failures.length, 1)
    assert.deepEqual(await source.ack([again]), [])
  })

  test('nobody is a suspect before the first crash, however low the limit is', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['failed', 'released'])
    const source = await process.subscribe({ maxCrashes: 1 })
    const [failed, released] = [await source.pullOne(), await source.pullOne()]
    await source.retry([failed], world.clock.now())
    await source.release([released])
    const grants = await source.pullAll()
    assert.deepEqual(dataOf(grants).toSorted(), ['failed', 'released'])
    for (const grant of grants) assert.partialDeepStrictEqual(grant, { isolated: false, crashes: 0 })
  })

  test('a crash between deliveries accuses nobody', async (world) => {
    const doomed = await world.process()
    await doomed.topic()
    await doomed.publish(['a', 'b'])
    const source = await doomed.subscribe()
    await source.ack([await source.pullOne()])
    await doomed.crash()
    await world.outliveLeases()
    const grant = await (await (await world.process()).source()).pullOne()
    assert.partialDeepStrictEqual(grant, { isolated: false, crashes: 0 })
  })
}

/** Publishes, leases everything in one process, and lets that process die. */
async function crashWith(world: World, data: readonly string[], maxCrashes: number): Promise<void> {
  const doomed = await world.process()
  await doomed.topic()
  await doomed.publish(data)
  const source = await doomed.subscribe({ maxCrashes })
  await source.pullAll()
  await doomed.crash()
  await world.outliveLeases()
}

/** Leases in a new process what the one before had, and lets it die, too. */
async function crashAgain(world: World): Promise<void> {
  const doomed = await world.process()
  await (await doomed.source()).pullAll()
  await doomed.crash()
  await world.outliveLeases()
}

/** As `crashWith`, with a message that has failed before and another beside it. */
async function crashWithRetry(world: World): Promise<void> {
  const doomed = await world.process()
  await doomed.topic()
  await doomed.publish(['flaky'])
  const source = await doomed.subscribe({ maxCrashes: SECOND_CHANCE })
  await source.retry(await source.pull(), world.clock.now())
  await doomed.publish(['other'])
  assert.deepEqual(dataOf(await source.pullAll()).toSorted(), ['flaky', 'other'])
  await doomed.crash()
  await world.outliveLeases()
}

async function assertOnlyPoisonDied(process: TestProcess, crashes: number): Promise<void> {
  const letters = await process.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 10 })
  assert.deepEqual(
    letters.map(({ event }) => event?.data),
    ['poison'],
  )
  assert.partialDeepStrictEqual(letters[0], { reason: 'crashed', crashes, attempts: 1, offset: 1 })
}

/** Handles messages until the poison kills the process. Returns what was handled before. */
async function dieOfPoison(world: World): Promise<unknown[]> {
  const process = await world.process()
  const handled = await handleUntilPoison(await process.source())
  await process.crash()
  await world.outliveLeases()
  return handled
}

async function handleUntilPoison(source: TestSource): Promise<unknown[]> {
  const handled: unknown[] = []
  for (;;) {
    const grant = await source.pullOne()
    const [data] = dataOf([grant])
    if (data === 'poison') return handled
    handled.push(data)
    await source.ack([grant])
  }
}
