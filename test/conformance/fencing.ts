/** Guarantee 5: a lease that ran out is fenced: what its holder says afterwards changes nothing. */
import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'
import { dataOf } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

export const fencing: Guarantee = (test) => {
  test('a late acknowledgement does not settle what somebody else has by now', async (world) => {
    const { late, heir, heirProcess, grants } = await loseLease(world)
    const again = await heir.pullOne()
    assert.deepEqual(await late.ack(grants), [grants[0]!.lease])
    assert.equal((await heirProcess.state()).leased, 1)
    assert.deepEqual(await heir.ack([again]), [])
  })

  test('a late acknowledgement does not settle what nobody has taken yet', async (world) => {
    const { late, heir, grants } = await loseLease(world)
    assert.deepEqual(await late.ack(grants), [grants[0]!.lease])
    assert.deepEqual(dataOf(await heir.drain()), ['contested'])
  })

  test('a late retry, dead letter or release adds nothing', async (world) => {
    const { late, heir, heirProcess, grants } = await loseLease(world)
    await heir.drain()
    for (const settle of [late.retry(grants, 0), late.dead(grants), late.release(grants)]) {
      assert.deepEqual(await settle, [grants[0]!.lease])
    }
    assert.partialDeepStrictEqual(await heirProcess.state(), { leased: 0, retrying: 0, returned: 0, deadLetters: 0 })
    assert.deepEqual(await heir.pullNow(), [])
  })

  test('the holder is told which leases it lost', async (world) => {
    const { late, lateProcess, grants } = await loseLease(world)
    lateProcess.goOn()
    await world.advance(1_000)
    await world.eventually(() => assert.deepEqual(late.lost, [grants[0]!.lease]))
  })

  test('a process that lost its session gets a new one, and works on', async (world) => {
    const { late, lateProcess, heir } = await loseLease(world)
    await heir.drain()
    lateProcess.goOn()
    await world.advance(1_000)
    await lateProcess.publish(['more'])
    const grants = await world.eventually(async () => {
      const found = await late.pullNow()
      assert.deepEqual(dataOf(found), ['more'])
      return found
    })
    await world.outliveLeases()
    assert.deepEqual(await late.ack(grants), [])
  })

  test('one settle call records the leases that are held, and names those that are not', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    const source = await process.subscribe()
    const [held, ended] = [await source.pullOne(), await source.pullOne()]
    await source.ack([ended])
    const unknown = 1_000_000_000
    const fenced = await source.source.settle([
      { lease: ended.lease, acked: [1, 2], exceptions: [] },
      { lease: held.lease, acked: [0, 1], exceptions: [] },
      { lease: unknown, acked: [0, 1], exceptions: [] },
    ])
    assert.deepEqual(
      fenced.toSorted((one, other) => one - other),
      [ended.lease, unknown],
    )
    assert.equal((await process.state()).leased, 0)
  })

  test('a lease that is over cannot be settled again', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    const grants = await source.pull()
    assert.deepEqual(await source.ack(grants), [])
    assert.deepEqual(await source.retry(grants, world.clock.now()), [grants[0]!.lease])
    assert.deepEqual(await source.pullNow(), [])
  })

  test("another process's lease cannot be settled", async (world) => {
    const [holder, other] = [await world.process(), await world.process()]
    await holder.topic()
    await holder.publish(['a'])
    const grants = await (await holder.subscribe()).pull()
    assert.deepEqual(await (await other.source()).ack(grants), [grants[0]!.lease])
    assert.equal((await holder.state()).leased, 1)
  })

  test('settling after the source was closed changes nothing', async (world) => {
    const [leaving, staying] = [await world.process(), await world.process()]
    await leaving.topic()
    await leaving.publish(['a'])
    const source = await leaving.subscribe()
    const grants = await source.pull()
    await source.close()
    assert.deepEqual(await source.ack(grants), [grants[0]!.lease])
    assert.deepEqual(dataOf(await (await staying.source()).pull()), ['a'])
  })

  test('closing late gives back nothing that is no longer held', async (world) => {
    const { late, heir, heirProcess } = await loseLease(world)
    await heir.drain()
    await late.close()
    assert.deepEqual(await heir.pullNow(), [])
    assert.partialDeepStrictEqual(await heirProcess.state(), { leased: 0, returned: 0 })
  })
}

interface LostLease {
  readonly late: TestSource
  readonly lateProcess: TestProcess
  readonly heir: TestSource
  readonly heirProcess: TestProcess
  readonly grants: readonly Grant[]
}

/** One process takes a message and stalls, until another one has seen its session run out. */
async function loseLease(world: World): Promise<LostLease> {
  const [lateProcess, heirProcess] = [await world.process(), await world.process()]
  await lateProcess.topic()
  await lateProcess.publish(['contested'])
  const late = await lateProcess.subscribe()
  const grants = await late.pull()
  const heir = await heirProcess.source()
  lateProcess.stall()
  await world.outliveLeases()
  await world.eventually(async () => assert.equal((await heirProcess.state()).returned, 1))
  return { late, lateProcess, heir, heirProcess, grants }
}
