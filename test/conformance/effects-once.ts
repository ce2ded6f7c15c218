/** Guarantee 7: finished steps are remembered, and a handler's writes can commit together with its settlement. */
import assert from 'node:assert/strict'
import { lateSteps, leased, steppedMessages, stepsOf } from './effects-once-steps.ts'
import type { ConformanceHarness, UserDatabase } from './harness.ts'
import { dataOf, newGroup, newMessage, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { ConformanceTest, Guarantee } from './suite.ts'
import type { World } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const LEASE_LOST = { code: 'POSTHORN_LEASE_LOST' }

export const effectsOnce: Guarantee = (test, harness) => {
  steps(test)
  lateSteps(test)
  steppedMessages(test)
  transactions(test, harness)
}

function steps(test: ConformanceTest): void {
  test('a recorded step is seen at once, and by the next attempt', async (world) => {
    const { source, grant } = await leased(world)
    assert.deepEqual(await stepsOf(source, grant), {})
    await source.source.recordStep(grant.lease, 0, 'charge', '{"id":"ch_0"}')
    await source.source.recordStep(grant.lease, 0, 'charge', '{"id":"ch_1"}')
    await source.source.recordStep(grant.lease, 0, 'grüße "alle"', 'null')
    const recorded = { charge: '{"id":"ch_1"}', 'grüße "alle"': 'null' }
    assert.deepEqual(await stepsOf(source, grant), recorded)
    await source.retry([grant], world.clock.now())
    assert.deepEqual(await stepsOf(source, await source.pullOne()), recorded)
  })

  test('it is seen after a release and after a wait, too', async (world) => {
    const { source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.release([grant])
    const again = await source.pullOne()
    assert.deepEqual(await stepsOf(source, again), { charge: '1' })
    await source.park([again], world.clock.now())
    assert.deepEqual(await stepsOf(source, await source.pullOne()), { charge: '1' })
  })

  test('it is seen by another process after this one has died', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await process.crash()
    await world.outliveLeases()
    const heir = await (await world.process()).source()
    assert.deepEqual(await stepsOf(heir, await heir.pullOne()), { charge: '1' })
  })

  test('each message has its own, and so has each subscription', async (world) => {
    const { process, source } = await leased(world)
    await process.subscription({ subscription: 'other' })
    await process.publish(['b', 'c'])
    const [grant] = await source.pull()
    await source.source.recordStep(grant!.lease, 2, 'charge', '1')
    assert.deepEqual(await stepsOf(source, grant!, 1), {})
    assert.deepEqual(await stepsOf(source, grant!, 2), { charge: '1' })
    const other = await process.source('other')
    const [elsewhere] = await other.pull()
    assert.deepEqual(await stepsOf(other, elsewhere!, 2), {})
  })

  test('a fenced lease records nothing, and is told so', async (world) => {
    const { process, source, grant } = await leased(world)
    process.stall()
    await world.outliveLeases()
    const heir = await (await world.process()).source()
    const again = await world.eventually(async () => {
      const [found] = await heir.pullNow()
      assert.ok(found)
      return found
    })
    await assert.rejects(source.source.recordStep(grant.lease, 0, 'charge', '1'), LEASE_LOST)
    await assert.rejects(source.source.steps(grant.lease, 0), LEASE_LOST)
    process.goOn()
    assert.deepEqual(await stepsOf(heir, again), {})
  })

  test('a settled message records nothing', async (world) => {
    const { source, grant } = await leased(world)
    await source.ack([grant])
    await assert.rejects(source.source.recordStep(grant.lease, 0, 'charge', '1'), LEASE_LOST)
  })

  test('steps are forgotten with the acknowledgement that names them', async (world) => {
    const { process, source } = await leased(world)
    await process.publish(['b', 'c'])
    const [grant] = await source.pull()
    for (const offset of [1, 2]) await source.source.recordStep(grant!.lease, offset, 'charge', '1')
    const lease = grant!.lease
    assert.deepEqual(await source.settle([{ lease, acked: [1, 2], exceptions: [], stepped: [1] }]), [])
    assert.deepEqual(await stepsOf(source, grant!, 2), { charge: '1' })
    await source.settle([{ lease, acked: [2, 3], exceptions: [], stepped: [2] }])
    await process.admin.seek(HERE, { offset: 1 })
    const [again] = await source.pull()
    assert.deepEqual(dataOf([again!]), ['b', 'c'])
    for (const offset of [1, 2]) assert.deepEqual(await stepsOf(source, again!, offset), {})
  })

  test('a retry forgets them, too, once it is acknowledged', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.retry([grant], world.clock.now())
    const { lease } = await source.pullOne()
    await source.settle([{ lease, acked: [0, 1], exceptions: [], stepped: [0] }])
    await process.admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual(await stepsOf(source, await source.pullOne()), {})
  })

  test('a dead letter keeps them, and its redelivery finds them', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.dead([grant])
    await process.admin.applyRetention()
    await process.admin.redrive(HERE, {})
    assert.deepEqual(await stepsOf(source, await source.pullOne()), { charge: '1' })
  })

  test('a subscription made anew knows nothing of them', async (world) => {
    const { process, source, grant } = await leased(world)
    await source.source.recordStep(grant.lease, 0, 'charge', '1')
    await source.close()
    await process.admin.deleteSubscription(HERE)
    const anew = await process.subscribe({ start: { at: 'earliest' } })
    assert.deepEqual(await stepsOf(anew, await anew.pullOne()), {})
  })

  test('a large result comes back whole', async (world) => {
    const { source, grant } = await leased(world)
    const result = JSON.stringify('ä'.repeat(200_000))
    await source.source.recordStep(grant.lease, 0, 'report', result)
    assert.deepEqual(await stepsOf(source, grant), { report: result })
  })
}

function transactions(test: ConformanceTest, { capabilities }: ConformanceHarness): void {
  const skip = capabilities.transactionalHandlers
    ? undefined
    : 'the engine declares that handlers cannot share a transaction with it'

  test(
    'the writes of a handler commit together with the acknowledgement',
    async (world) => {
      const { process, source, grant } = await leased(world)
      await using database = await userDatabase(world)
      const outcome = await source.source.transact(grant.lease, 0, (transaction) => database.write(transaction, 'paid'))
      assert.equal(outcome, 'committed')
      assert.deepEqual(await database.values(), ['paid'])
      assert.partialDeepStrictEqual(await process.state(), { leased: 0, retrying: 0, returned: 0, backlog: 0 })
      await process.crash()
      await world.outliveLeases()
      assert.deepEqual(await (await (await world.process()).source()).pullNow(), [])
    },
    skip,
  )

  test(
    'when it rejects, nothing was written, and the message is still its own',
    async (world) => {
      const { process, source, grant } = await leased(world)
      await using database = await userDatabase(world)
      const refusal = new Error('card declined')
      const work = async (transaction: unknown) => {
        await database.write(transaction, 'paid')
        throw refusal
      }
      await assert.rejects(source.source.transact(grant.lease, 0, work), (error) => error === refusal)
      assert.deepEqual(await database.values(), [])
      assert.equal((await process.state()).leased, 1)
      assert.deepEqual(await source.retry([grant], world.clock.now()), [])
      const again = await source.pullOne()
      assert.equal(again.attempt, 2)
      const second = (transaction: unknown) => database.write(transaction, 'paid at last')
      assert.equal(await source.source.transact(again.lease, 0, second), 'committed')
      assert.deepEqual(await database.values(), ['paid at last'])
    },
    skip,
  )

  test(
    'after the lease was lost, nothing is written',
    async (world) => {
      const { process, source, grant } = await leased(world)
      await using database = await userDatabase(world)
      process.stall()
      await world.outliveLeases()
      const other = await world.process()
      await world.eventually(async () => assert.equal((await other.state()).returned, 1))
      const work = (transaction: unknown) => database.write(transaction, 'paid twice')
      assert.equal(await source.source.transact(grant.lease, 0, work), 'fenced')
      process.goOn()
      assert.deepEqual(await database.values(), [])
      assert.equal((await (await other.source()).drain()).length, 1)
    },
    skip,
  )

  test(
    'what is published within commits or goes with it',
    async (world) => {
      const { process, source, grant } = await leased(world)
      await using _database = await userDatabase(world)
      await process.topic({ topic: 'other' })
      const publish = async (transaction: unknown, data: string) => {
        await process.engine.appendIn(transaction, newGroup([newMessage(data, world.clock.now())], 'other'))
      }
      const failing = source.source.transact(grant.lease, 0, async (transaction) => {
        await publish(transaction, 'lost')
        throw new Error('card declined')
      })
      await assert.rejects(failing, { message: 'card declined' })
      assert.equal((await process.topicState('other')).messages, 0)
      await source.source.transact(grant.lease, 0, (transaction) => publish(transaction, 'stored'))
      await world.eventually(async () => assert.equal((await process.topicState('other')).messages, 1))
    },
    skip ?? (capabilities.transactionalAppend ? undefined : 'the engine cannot publish within a transaction'),
  )

  test(
    'one message of several is settled; the others are not',
    async (world) => {
      const { process, source } = await leased(world)
      await using database = await userDatabase(world)
      await process.publish(['b', 'c', 'd'])
      const [grant] = await source.pull()
      const { lease } = grant!
      for (const offset of [2, 1]) {
        await source.source.transact(lease, offset, (transaction) => database.write(transaction, String(offset)))
      }
      assert.deepEqual(await database.values(), ['2', '1'])
      assert.deepEqual(await source.settle([{ lease, acked: [], exceptions: [{ offset: 3, kind: 'release' }] }]), [])
      assert.deepEqual(dataOf(await source.drain()), ['d'])
    },
    skip,
  )

  test(
    'the first of a chain that commits lets its key go on',
    async (world) => {
      const process = await world.process()
      await process.topic()
      const source = await process.subscribe({ ordered: true })
      await using database = await userDatabase(world)
      await process.publish(['a', 'b'], { key: 'k' })
      await source.retryWithFollowers(await source.pull(), world.clock.now(), 'k')
      const { lease } = await source.pullOne()
      await source.source.transact(lease, 0, (transaction) => database.write(transaction, 'a'))
      assert.deepEqual(dataOf(await source.drain()), ['b'])
    },
    skip,
  )

  test(
    'transactions that are asked for side by side all commit',
    async (world) => {
      const { process, source } = await leased(world)
      await using database = await userDatabase(world)
      await process.publish(['b', 'c', 'd'])
      const [grant] = await source.pull()
      const outcomes = await Promise.all(
        [1, 2, 3].map((offset) =>
          source.source.transact(grant!.lease, offset, (transaction) => database.write(transaction, String(offset))),
        ),
      )
      assert.deepEqual(outcomes, ['committed', 'committed', 'committed'])
      assert.deepEqual((await database.values()).toSorted(), ['1', '2', '3'])
    },
    skip,
  )

  test(
    'an engine that cannot says so',
    async (world) => {
      const { source, grant } = await leased(world)
      let ran = false
      const work = async () => {
        ran = true
      }
      await assert.rejects(source.source.transact(grant.lease, 0, work), { code: 'POSTHORN_UNSUPPORTED' })
      assert.equal(ran, false)
    },
    capabilities.transactionalHandlers ? 'the engine can' : undefined,
  )
}

async function userDatabase(world: World): Promise<UserDatabase & AsyncDisposable> {
  const database = await world.harness.userDatabase?.(world.store)
  assert.ok(database, 'the harness declares transactional handlers and has no userDatabase')
  return {
    write: (transaction, value) => database.write(transaction, value),
    values: () => database.values(),
    [Symbol.asyncDispose]: () => database.close(),
    close: () => database.close(),
  }
}
