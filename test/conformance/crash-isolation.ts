/** Guarantee 6: a message that kills its process is found and taken out; innocent ones beside it lose nothing. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const CRASHES_MAX = 3

export const crashIsolation: Guarantee = (test) => {
  test('what a lost session had comes back singly, marked as suspect, with the attempt unchanged', async (world) => {
    await crashWith(world, ['a', 'b', 'c'])
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
    await crashWith(world, ['a', 'b', 'c'])
    const [one, other] = [await world.process(), await world.process()]
    const [source, elsewhere] = [await one.source(), await other.source()]
    const first = await source.pullAll()
    const second = await elsewhere.pullAll()
    assert.equal(first.length, 1)
    assert.equal(second.length, 1)
    await source.ack(first)
    assert.equal((await source.pullAll()).length, 1)
  })

  test('a waiting pull wakes when the suspect that is out has been settled', async (world) => {
    await crashWith(world, ['a', 'b'])
    const process = await world.process()
    const source = await process.source()
    const first = await source.pullOne()
    const waiting = source.pull()
    await process.roundTrip()
    await source.ack([first])
    assert.equal((await waiting)[0]?.isolated, true)
  })

  test('suspects do not keep new messages waiting', async (world) => {
    await crashWith(world, ['a', 'b', 'c'])
    const process = await world.process()
    await process.publish(['new'])
    const source = await process.source()
    assert.ok(dataOf(await source.pullAll()).includes('new'))
  })

  test('the message that was alone at every crash becomes a dead letter; the others are delivered', async (world) => {
    await crashWith(world, ['innocent', 'poison', 'bystander'])
    const handled: unknown[] = []
    for (let crashes = 1; crashes < CRASHES_MAX; crashes++) handled.push(...(await dieOfPoison(world)))
    const last = await world.process()
    handled.push(...dataOf(await (await last.source()).drain()))
    assert.deepEqual(handled.toSorted(), ['bystander', 'innocent'])
    const letters = await last.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 10 })
    assert.deepEqual(
      letters.map(({ event }) => event?.data),
      ['poison'],
    )
    assert.partialDeepStrictEqual(letters[0], { reason: 'crashed', crashes: CRASHES_MAX, attempts: 1, offset: 1 })
  })

  test('innocent messages keep their attempts: a retry that was leased beside the poison is still the second', async (world) => {
    const doomed = await world.process()
    await doomed.topic()
    await doomed.publish(['flaky'])
    const source = await doomed.subscribe({ maxCrashes: CRASHES_MAX })
    await source.retry(await source.pull(), world.clock.now())
    await doomed.publish(['poison'])
    assert.deepEqual(dataOf(await source.pullAll()).toSorted(), ['flaky', 'poison'])
    await doomed.crash()
    await world.outliveLeases()
    const grants = await (await (await world.process()).source()).drain()
    const flaky = grants.find((grant) => grant.messages[0]?.event.data === 'flaky')
    assert.partialDeepStrictEqual(flaky, { attempt: 2, crashes: 1, isolated: true })
    assert.equal(flaky?.failures.length, 1)
  })

  test('a released suspect is still a suspect', async (world) => {
    await crashWith(world, ['a'])
    const source = await (await world.process()).source()
    await source.release([await source.pullOne()])
    assert.partialDeepStrictEqual(await source.pullOne(), { isolated: true, crashes: 1, attempt: 1 })
  })

  test('a suspect that fails in the ordinary way is retried in the ordinary way', async (world) => {
    await crashWith(world, ['a'])
    const source = await (await world.process()).source()
    await source.retry([await source.pullOne()], world.clock.now())
    const again = await source.pullOne()
    assert.equal(again.attempt, 2)
    assert.equal(again.failures.length, 1)
    assert.deepEqual(await source.ack([again]), [])
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
async function crashWith(world: World, data: readonly string[]): Promise<void> {
  const doomed = await world.process()
  await doomed.topic()
  await doomed.publish(data)
  const source = await doomed.subscribe({ maxCrashes: CRASHES_MAX })
  await source.pullAll()
  await doomed.crash()
  await world.outliveLeases()
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
