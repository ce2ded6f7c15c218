/** Dead letters: what is kept of them, and how they come back. */
import assert from 'node:assert/strict'
import type { DeadLetter } from '../../src/engine.ts'
import { dataOf, failure, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }

export const deadLetters: Guarantee = (test) => {
  test('a dead letter says all that is known', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['hopeless'])
    const source = await process.subscribe()
    const startMs = world.clock.now()
    await source.retry(await source.pull(), startMs)
    await world.advance(10)
    await source.dead([await source.pullOne()])
    const [letter] = await lettersOf(process)
    assert.partialDeepStrictEqual(letter, {
      ...HERE,
      partition: 0,
      offset: 0,
      reason: 'attempts',
      deadAtMs: startMs + 10,
      attempts: 2,
      crashes: 0,
      failures: [failure(1, startMs), failure(2, startMs + 10, 'given up')],
      event: { data: 'hopeless', type: TOPIC },
    })
  })

  test('every reason is kept as given', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const reasons = ['attempts', 'discarded', 'expired', 'invalid'] as const
    await process.publish(reasons)
    const [grant] = await source.pull()
    const exceptions = reasons.map((reason, offset) => {
      return { offset, kind: 'dead', reason, failure: { ...failure(1, 5), code: 'E1', stack: 'at x' } } as const
    })
    await source.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    const letters = await lettersOf(process)
    assert.deepEqual(
      letters.map(({ reason }) => reason),
      reasons,
    )
    assert.deepEqual(letters[0]?.failures, [{ ...failure(1, 5), code: 'E1', stack: 'at x' }])
  })

  test('dead letters are not delivered again, and belong to one subscription', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.subscription({ subscription: 'other' })
    const source = await process.subscribe()
    await killAll(process, source, ['a', 'b'])
    assert.deepEqual(await source.pullNow(), [])
    assert.equal((await process.state()).deadLetters, 2)
    assert.equal((await process.state('other')).deadLetters, 0)
    assert.deepEqual(dataOf(await (await process.source('other')).pullAll()), ['a', 'b'])
  })

  test('they are listed oldest first, page by page', async (world) => {
    const process = await world.process()
    await process.topic()
    await killAll(process, await process.subscribe(), [0, 1, 2, 3, 4])
    const seen: unknown[] = []
    let afterId = 0
    for (
      let page = await lettersOf(process, afterId, 2);
      page.length > 0;
      page = await lettersOf(process, afterId, 2)
    ) {
      assert.ok(page.length <= 2)
      seen.push(...page.map(({ event }) => event?.data))
      afterId = page.at(-1)!.id
    }
    assert.deepEqual(seen, [0, 1, 2, 3, 4])
  })

  test('redriven, all come back as new first attempts, each once', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await killAll(process, source, ['a', 'b', 'c'])
    assert.equal(await process.admin.redrive(HERE, {}), 3)
    assert.equal((await process.state()).deadLetters, 0)
    const grants = await source.drain()
    assert.deepEqual(dataOf(grants).toSorted(), ['a', 'b', 'c'])
    for (const grant of grants) assert.partialDeepStrictEqual(grant, { attempt: 1, crashes: 0, failures: [] })
    assert.equal(await process.admin.redrive(HERE, {}), 0)
  })

  test('redriven by id, only those come back', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await killAll(process, source, ['a', 'b', 'c'])
    const letters = await lettersOf(process)
    assert.equal(await process.admin.redrive(HERE, { ids: [letters[1]!.id, 1_000_000] }), 1)
    assert.deepEqual(dataOf(await source.drain()), ['b'])
    assert.deepEqual(await process.admin.redrive(HERE, { ids: [] }), 0)
  })

  test('redriven at a rate, they are spread over time', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await killAll(process, source, [0, 1, 2, 3, 4, 5])
    await process.admin.redrive(HERE, { perSecond: 2 })
    const perSecond: number[] = []
    for (let second = 0; second < 3; second++) {
      perSecond.push((await source.drain()).length)
      await world.advance(500)
      perSecond[second]! += (await source.drain()).length
      await world.advance(500)
    }
    assert.equal(
      perSecond.reduce((total, count) => total + count, 0),
      6,
    )
    assert.ok(
      perSecond.every((count) => count >= 1 && count <= 3),
      String(perSecond),
    )
  })

  test('a waiting pull wakes when dead letters are redriven', async (world) => {
    const [worker, operator] = [await world.process(), await world.process()]
    await worker.topic()
    const source = await worker.subscribe()
    await killAll(worker, source, ['a'])
    const waiting = source.pull()
    await worker.roundTrip()
    await operator.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await waiting), ['a'])
  })

  test('a dead letter outlives retention, and so does its redelivery, through retries and death', async (world) => {
    const process = await world.process()
    await process.topic({ kind: 'queue' })
    const source = await process.subscribe()
    await killAll(process, source, ['a'])
    await process.admin.applyRetention()
    assert.equal((await process.topicState()).messages, 0)
    assert.equal(await process.admin.redrive(HERE, {}), 1)
    await source.retry([await source.pullOne()], world.clock.now())
    await source.dead([await source.pullOne()])
    const [letter] = await lettersOf(process)
    assert.partialDeepStrictEqual(letter, { attempts: 2, event: { data: 'a' } })
    await process.admin.redrive(HERE, {})
    assert.deepEqual(dataOf(await source.drain()), ['a'])
  })

  test('a redriven message that a dead process had comes again', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic({ kind: 'queue' })
    const source = await doomed.subscribe()
    await killAll(doomed, source, ['a'])
    await doomed.admin.redrive(HERE, {})
    await source.pullOne()
    await doomed.crash()
    const heir = await survivor.source()
    await world.outliveLeases()
    assert.deepEqual(dataOf(await heir.drain()), ['a'])
  })

  test('deleted, some or all, they are gone', async (world) => {
    const process = await world.process()
    await process.topic()
    await killAll(process, await process.subscribe(), ['a', 'b', 'c'])
    const letters = await lettersOf(process)
    assert.equal(await process.admin.deleteDeadLetters(HERE, [letters[0]!.id, 1_000_000]), 1)
    assert.deepEqual(
      (await lettersOf(process)).map(({ event }) => event?.data),
      ['b', 'c'],
    )
    assert.equal(await process.admin.deleteDeadLetters(HERE, []), 0)
    assert.equal(await process.admin.deleteDeadLetters(HERE), 2)
    assert.deepEqual(await lettersOf(process), [])
  })
}

function lettersOf(process: TestProcess, afterId?: number, limit = 100): Promise<readonly DeadLetter[]> {
  return process.admin.deadLetters(HERE, { limit, ...(afterId !== undefined && { afterId }) })
}

async function killAll(process: TestProcess, source: TestSource, data: readonly unknown[]): Promise<void> {
  await process.publish(data)
  await source.dead(await source.pullAll())
}
