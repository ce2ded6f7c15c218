/** `append` with `atomic`: all groups or none, over all topics. */
import assert from 'node:assert/strict'
import type { AppendGroup, AppendOutcome } from '../../src/engine.ts'
import { assertCode } from './assertions.ts'
import { dataOf, newGroup, newMessage, numbersTo, type PublishOptions } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'

export const atomicAppend: Guarantee = (test) => {
  test('all groups are stored, in every topic', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'orders' })
    await process.topic({ topic: 'payments' })
    const outcomes = await append(process, [
      group(process, ['placed', 'packed'], 'orders'),
      group(process, ['charged'], 'payments'),
    ])
    assert.deepEqual(outcomes, [
      {
        receipts: [
          { duplicate: false, partition: 0, offset: 0 },
          { duplicate: false, partition: 0, offset: 1 },
        ],
      },
      { receipts: [{ duplicate: false, partition: 0, offset: 0 }] },
    ])
    assert.equal((await process.topicState('orders')).messages, 2)
    assert.equal((await process.topicState('payments')).messages, 1)
  })

  test('a full backlog refuses all, wherever it stands, and all for that reason', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'full', maxBacklog: 1 })
    await process.topic({ topic: 'roomy' })
    await process.subscription({ topic: 'full' })
    await process.publish(['first'], { topic: 'full' })
    const full = () => group(process, ['a'], 'full')
    const roomy = () => group(process, ['b'], 'roomy')
    for (const groups of [
      [full(), roomy()],
      [roomy(), full()],
      [roomy(), full(), roomy()],
    ]) {
      const outcomes = await append(process, groups)
      assert.equal(outcomes.length, groups.length)
      for (const outcome of outcomes) {
        assert.ok('refused' in outcome)
        assertCode(outcome.refused, 'POSTHORN_BACKLOG_FULL')
      }
    }
    assert.equal((await process.topicState('full')).messages, 1)
    assert.equal((await process.topicState('roomy')).messages, 0)
  })

  test('an unknown topic refuses all', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const outcomes = await append(process, [group(process, ['a']), group(process, ['b'], 'unheard-of')])
    for (const outcome of outcomes) {
      assert.ok('refused' in outcome)
      assertCode(outcome.refused, 'POSTHORN_TOPIC_NOT_FOUND')
    }
    assert.deepEqual(await source.pullNow(), [])
  })

  test('what was refused left nothing behind: no id, no delayed message, no offset', async (world) => {
    const process = await world.process()
    await process.topic()
    const deliverAtMs = world.clock.now() + 100
    await append(process, [
      group(process, ['known'], undefined, { id: 'order-1' }),
      group(process, ['later'], undefined, { deliverAtMs }),
      group(process, ['urgent'], undefined, { priority: 'high' }),
      group(process, ['lost'], 'unheard-of'),
    ])
    assert.partialDeepStrictEqual(await process.topicState(), { messages: 0, delayed: 0 })
    assert.deepEqual(await process.publish(['again'], { id: 'order-1' }), [
      { duplicate: false, partition: 0, offset: 0 },
    ])
  })

  test('the messages of a topic keep their order, over all of its groups', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.topic({ topic: 'other' })
    const source = await process.subscribe()
    await append(process, [
      group(process, [0, 1]),
      group(process, ['elsewhere'], 'other'),
      group(process, [2]),
      group(process, [3, 4]),
    ])
    assert.deepEqual(dataOf(await source.pullAll()), numbersTo(5))
  })

  test('a duplicate is no refusal, also of a message of the same call', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.topic({ topic: 'other' })
    const source = await process.subscribe()
    await process.publish(['stored before'], { id: 'order-1' })
    const outcomes = await append(process, [
      group(process, ['again'], undefined, { id: 'order-1' }),
      group(process, ['new'], undefined, { id: 'order-2' }),
      group(process, ['new again'], undefined, { id: 'order-2' }),
      group(process, ['elsewhere'], 'other', { id: 'order-1' }),
    ])
    assert.deepEqual(
      outcomes.map((outcome) => 'receipts' in outcome && outcome.receipts[0]?.duplicate),
      [true, false, true, false],
    )
    assert.deepEqual(dataOf(await source.pullAll()), ['stored before', 'new'])
  })

  test('another call of the same moment is not touched', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const [before, refused, after] = await Promise.all([
      process.engine.append([group(process, ['before'])]),
      append(process, [group(process, ['refused']), group(process, ['lost'], 'unheard-of')]),
      append(process, [group(process, ['after'])]),
    ])
    assert.ok('receipts' in before[0]! && 'refused' in refused[0]! && 'receipts' in after[0]!)
    assert.deepEqual(dataOf(await source.pullAll()), ['before', 'after'])
  })

  test('nothing, all at once, is nothing', async (world) => {
    const process = await world.process()
    assert.deepEqual(await append(process, []), [])
  })
}

function append(process: TestProcess, groups: readonly AppendGroup[]): Promise<readonly AppendOutcome[]> {
  return process.engine.append(groups, { atomic: true })
}

function group(
  process: TestProcess,
  data: readonly unknown[],
  topic?: string,
  options: PublishOptions = {},
): AppendGroup {
  const nowMs = process.world.clock.now()
  const messages = data.map((item) => newMessage(item, nowMs, options))
  return newGroup(messages, topic)
}
