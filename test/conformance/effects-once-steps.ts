/** How long results of steps are taken, and how long they are kept. */
import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { ConformanceTest } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const LEASE_LOST = { code: 'POSTHORN_LEASE_LOST' }
const RETRY_MS = 1_000

/** What came too late for its attempt. */
export function lateSteps(test: ConformanceTest): void {
  test('a failed message takes results while it waits for its next attempt, and none once that is granted', async (world) => {
    const { source, grant } = await leased(world)
    await source.retry([grant], world.clock.now() + RETRY_MS)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await assert.rejects(source.source.recordStep(grant.lease, 1, 'charge', '1'), LEASE_LOST)
    await world.clock.advance(RETRY_MS)
    const second = await source.pullOne()
    assert.equal(second.attempt, 2)
    await assert.rejects(source.source.recordStep(grant.lease, 0, 'charge', '2'), LEASE_LOST)
    assert.deepEqual(await stepsOf(source, second), { charge: '1' })
    await source.retry([second], world.clock.now() + RETRY_MS)
    await assert.rejects(source.source.recordStep(grant.lease, 0, 'mail', '2'), LEASE_LOST)
    await source.source.recordStep(second.lease, 0, 'mail', '3')
    await world.clock.advance(RETRY_MS)
    assert.deepEqual(await stepsOf(source, await source.pullOne()), { charge: '1', mail: '3' })
  })

  test('nor once another process has it', async (world) => {
    const { source, grant } = await leased(world)
    await source.retry([grant], world.clock.now())
    const other = await (await world.process()).source()
    const second = await other.pullOne()
    await assert.rejects(source.source.recordStep(grant.lease, 0, 'charge', '1'), LEASE_LOST)
    await other.source.recordStep(second.lease, 0, 'charge', '2')
    assert.deepEqual(await stepsOf(other, second), { charge: '2' })
  })

  test('of several that failed under one lease, each takes its own', async (world) => {
    const { process, source } = await leased(world)
    await process.publish(['b', 'c'])
    const grants = await source.pull()
    await source.retry(grants, world.clock.now() + RETRY_MS)
    const { lease } = grants[0]!
    for (const offset of [1, 2]) await source.source.recordStep(lease, offset, 'charge', `${offset}`)
    await world.clock.advance(RETRY_MS)
    const again = await source.pullAll()
    assert.deepEqual(dataOf(again), ['b', 'c'])
    for (const grant of again)
      assert.deepEqual(await stepsOf(source, grant), { charge: `${grant.messages[0]!.offset}` })
  })

  const ends: Record<
    string,
    (source: TestSource, grant: Grant, world: World, process: TestProcess) => Promise<unknown>
  > = {
    'that was released': (source, grant) => source.release([grant]),
    'that was set aside': (source, grant, world) => source.park([grant], world.clock.now() + RETRY_MS),
    'that is dead': (source, grant) => source.dead([grant]),
    'that failed and was cancelled then': async (source, grant, world, process) => {
      await source.retry([grant], world.clock.now() + RETRY_MS)
      const [peeked] = await process.admin.peek(TOPIC, { partition: 0, fromOffset: 0, limit: 1 })
      await process.admin.cancel(TOPIC, peeked!.message.event.id)
    },
    'that failed and was taken back by a seek': async (source, grant, world, process) => {
      await source.retry([grant], world.clock.now() + RETRY_MS)
      await process.admin.seek(HERE, { at: 'earliest' })
    },
    'whose source has closed': async (source, grant, world) => {
      await source.retry([grant], world.clock.now() + RETRY_MS)
      await source.close()
    },
  }
  for (const [name, end] of Object.entries(ends)) {
    test(`a message ${name} takes no results`, async (world) => {
      const { process, source, grant } = await leased(world)
      await end(source, grant, world, process)
      await assert.rejects(source.source.recordStep(grant.lease, 0, 'charge', '1'), LEASE_LOST)
    })
  }
}

/** What operators do to results. */
export function steppedMessages(test: ConformanceTest): void {
  test('a redrive forgets results that say what was wrong with them, and no others', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '{"value":{"problem":1}}')
    await source.source.recordStep(grant.lease, 0, 'mail', '{"problem":"it is a Map"}')
    await source.release([grant])
    const again = await source.pullOne()
    assert.deepEqual(Object.keys(await stepsOf(source, again)).toSorted(), ['charge', 'mail'])
    await source.dead([again])
    await process.admin.redrive(HERE, {})
    assert.deepEqual(await stepsOf(source, await source.pullOne()), { charge: '{"value":{"problem":1}}' })
  })

  for (const chosen of ['all', 'some'] as const) {
    test(`deleting dead letters (${chosen}) forgets the steps of their messages`, async (world) => {
      const { process, source, grant } = await leased(world)
      await process.publish(['b'])
      const dying = [grant, await source.pullOne()]
      for (const { lease, messages } of dying) await source.source.recordStep(lease, messages[0]!.offset, 'charge', '1')
      await source.dead(dying)
      const [first] = await process.deadLetters()
      await process.admin.deleteDeadLetters(HERE, chosen === 'all' ? undefined : [first!.id])
      await process.admin.seek(HERE, { at: 'earliest' })
      const [again] = await source.pull()
      assert.deepEqual(dataOf([again!]), ['a', 'b'])
      assert.deepEqual(await stepsOf(source, again!, 0), {})
      assert.deepEqual(await stepsOf(source, again!, 1), chosen === 'all' ? {} : { charge: '1' })
    })
  }

  test('not of one that is under way again after a seek', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.dead([grant])
    await process.admin.seek(HERE, { at: 'earliest' })
    const again = await source.pullOne()
    await process.admin.deleteDeadLetters(HERE)
    assert.deepEqual(await stepsOf(source, again), { charge: '1' })
    await source.retry([again], world.clock.now())
    const third = await source.pullOne()
    assert.deepEqual(await stepsOf(source, third), { charge: '1' })
  })

  test('a seek keeps the steps of what was under way, and of nothing that was acknowledged', async (world) => {
    const { process, source, grant } = await leased(world)
    await process.publish(['b', 'c'])
    const [rest] = await source.pull()
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    for (const offset of [1, 2]) await source.source.recordStep(rest!.lease, offset, 'charge', '1')
    // Acknowledged by a handler that did not know of its steps.
    await source.settle([{ lease: rest!.lease, acked: [1, 2], exceptions: [{ offset: 2, kind: 'release' }] }])
    await process.admin.seek(HERE, { at: 'earliest' })
    const [again] = await source.pull()
    assert.deepEqual(await stepsOf(source, again!, 0), { charge: '1' })
    assert.deepEqual(await stepsOf(source, again!, 1), {})
    assert.deepEqual(await stepsOf(source, again!, 2), { charge: '1' })
    await source.release([again!])
    await process.admin.seek(HERE, { offset: 2 })
    await source.ack(await source.pullAll())
    await process.admin.seek(HERE, { at: 'earliest' })
    const [last] = await source.pull()
    for (const offset of [0, 1, 2]) assert.deepEqual(await stepsOf(source, last!, offset), {})
  })

  test('a seek forgets the steps of what it passes over', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await process.admin.seek(HERE, { at: 'earliest' })
    await process.admin.seek(HERE, { at: 'latest' })
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual(await stepsOf(source, await source.pullOne()), {})
  })

  test('a purge keeps those of dead letters', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.dead([grant])
    await process.admin.purge(TOPIC)
    await process.admin.redrive(HERE, {})
    assert.deepEqual(await stepsOf(source, await source.pullOne()), { charge: '1' })
  })
}

/** One message, under lease. */
export async function leased(world: World): Promise<{ process: TestProcess; source: TestSource; grant: Grant }> {
  const process = await world.process()
  await process.topic()
  await process.publish(['a'])
  const source = await process.subscribe()
  return { process, source, grant: await source.pullOne() }
}

export async function stepsOf(
  source: TestSource,
  grant: Grant,
  offset: number = grant.messages[0]!.offset,
): Promise<object> {
  return Object.fromEntries(await source.source.steps(grant.lease, offset))
}
