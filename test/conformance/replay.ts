/** `seek` moves a subscription back or forth, while deliveries are under way. */
import assert from 'node:assert/strict'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import { LEASE_MS } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const replay: Guarantee = (test) => {
  test('back to the start, everything comes again, as first attempts', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    await source.drain()
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.equal((await process.state()).backlog, 4)
    const grants = await source.drain()
    assert.deepEqual(dataOf(grants), [0, 1, 2, 3])
    for (const grant of grants) assert.equal(grant.attempt, 1)
  })

  test('back to an offset, that message and the later ones come again', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    await source.drain()
    await process.admin.seek(HERE, { offset: 2, partition: 0 })
    assert.deepEqual(dataOf(await source.drain()), [2, 3])
  })

  test('back to a time, what was published since comes again', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['before'])
    await world.advance(1_000)
    const timeMs = world.clock.now()
    await process.publish(['at'])
    await world.advance(1_000)
    await process.publish(['after'])
    await source.drain()
    await process.admin.seek(HERE, { timeMs })
    assert.deepEqual(dataOf(await source.drain()), ['at', 'after'])
  })

  test('back to a time, also where delayed messages entered the log in another order', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription()
    const startMs = world.clock.now()
    await process.publish(['older, due last'], { deliverAtMs: startMs + 2_000 })
    await world.advance(500)
    const timeMs = world.clock.now()
    await process.publish(['newer, due first'], { deliverAtMs: startMs + 1_999 })
    await process.close()
    await world.advance(2_000)
    const later = await world.process()
    const reader = await later.source()
    await reader.drain()
    await later.admin.seek(HERE, { timeMs })
    assert.ok(dataOf(await reader.drain()).includes('newer, due first'))
  })

  test('in every partition', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 4 })
    const source = await process.subscribe()
    for (let number = 0; number < 20; number++) await process.publish([number], { key: `key-${number}` })
    await source.drain()
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.equal(dataOf(await source.drain()).length, 20)
  })

  test('forward, what lies between is passed over, and what was under way goes on', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    const leased = await source.pullOne()
    await source.retry([await source.pullOne()], world.clock.now() + 100)
    await process.admin.seek(HERE, { at: 'latest' })
    assert.deepEqual(await source.pullNow(), [])
    assert.deepEqual(await source.ack([leased]), [])
    await world.advance(100)
    assert.deepEqual(dataOf(await source.drain()), [1])
    await process.publish(['new'])
    assert.deepEqual(dataOf(await source.drain()), ['new'])
  })

  test('leases at or after the position are fenced; those before it stay', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    const before = await source.pull({ messagesMax: 2 })
    const after = await source.pull({ messagesMax: 2 })
    await process.admin.seek(HERE, { offset: 2 })
    assert.deepEqual(await source.ack(after), [after[0]!.lease])
    assert.deepEqual(await source.ack(before), [])
    assert.deepEqual(dataOf(await source.drain()), [2, 3])
  })

  test('the holder of a lease that was taken back is told, by the next renewal at the latest', async (world) => {
    const { process, source } = await published(await world.process(), [0])
    const grant = await source.pullOne()
    await process.admin.seek(HERE, { at: 'earliest' })
    await world.advance(LEASE_MS)
    await world.eventually(() => assert.deepEqual(source.lost, [grant.lease]))
  })

  test('a lease across the position: what it holds from there on comes again, once', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    const [grant] = await source.pull()
    await process.admin.seek(HERE, { offset: 2 })
    await source.source.settle([{ lease: grant!.lease, acked: [2, 4], exceptions: [] }])
    const again = dataOf(await source.drain()) as number[]
    assert.deepEqual(again.filter((number) => number >= 2).toSorted(), [2, 3])
    assert.equal(new Set(again).size, again.length)
  })

  test('retries at or after the position are taken back, so that nothing comes twice', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    await source.retry(await source.pull(), world.clock.now() + 100)
    await process.admin.seek(HERE, { offset: 2 })
    assert.partialDeepStrictEqual(await process.state(), { retrying: 2, backlog: 2 })
    await world.advance(100)
    const grants = await source.drain()
    assert.deepEqual((dataOf(grants) as number[]).toSorted(), [0, 1, 2, 3])
    for (const grant of grants) assert.equal(grant.attempt, grant.messages[0]!.offset < 2 ? 2 : 1)
  })

  test('returned messages at or after the position come once', async (world) => {
    const { process, source } = await published(await world.process(), [0, 1, 2, 3])
    await source.release(await source.pull())
    await process.admin.seek(HERE, { offset: 1 })
    assert.deepEqual((dataOf(await source.drain()) as number[]).toSorted(), [0, 1, 2, 3])
  })

  test('a redriven message that the log no longer has is not lost by a replay', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    await process.publish(['kept'])
    await source.dead(await source.pull())
    await process.admin.applyRetention()
    await process.admin.redrive(HERE, {})
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual(dataOf(await source.drain()), ['kept'])
  })

  test('dead letters stay, and other subscriptions are not moved', async (world) => {
    const { process, source } = await published(await world.process(), ['dead'])
    const other = await process.subscribe({ subscription: 'other', start: { at: 'earliest' } })
    await other.drain()
    await source.dead(await source.pull())
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.equal((await process.state()).deadLetters, 1)
    assert.deepEqual(await other.pullNow(), [])
  })

  test('a waiting pull of another process wakes', async (world) => {
    const { process, source } = await published(await world.process(), ['again'])
    await source.drain()
    const waiting = source.pull()
    await process.roundTrip()
    await (await world.process()).admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual(dataOf(await waiting), ['again'])
  })

  test('an unknown subscription cannot be moved', async (world) => {
    const process = await world.process()
    await assert.rejects(process.admin.seek(HERE, { at: 'latest' }), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
    await process.topic()
    await assert.rejects(process.admin.seek(HERE, { at: 'latest' }), { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' })
  })
}

async function published(
  process: TestProcess,
  data: readonly unknown[],
): Promise<{ process: TestProcess; source: TestSource }> {
  await process.topic()
  const source = await process.subscribe()
  await process.publish(data)
  return { process, source }
}
