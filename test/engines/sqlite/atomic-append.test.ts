/** All groups of a call, or none. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { AppendGroup, AppendOutcome } from '../../../src/engine.ts'
import type { PosthornError } from '../../../src/errors.ts'
import { newGroup, newMessage, type PublishOptions } from '../../conformance/messages.ts'
import { Bench, newFile, sql, TOPIC, topicConfig } from './bench.ts'

const FULL = 'full'

const group = (topic: string, data: unknown, options?: PublishOptions): AppendGroup =>
  newGroup([newMessage(data, Date.now(), options)], topic)

const codesOf = (outcomes: readonly AppendOutcome[]) =>
  outcomes.map((outcome) => ('refused' in outcome ? (outcome.refused as PosthornError).code : 'stored'))

describe('an atomic append', { concurrency: 2 }, () => {
  test('stores all groups', async (context) => {
    const { bench } = await withFullTopic(context)
    const outcomes = await bench.engine.append([group(TOPIC, 'a'), group(TOPIC, 'b', { priority: 'high' })], {
      atomic: true,
    })
    assert.deepEqual(outcomes, [
      { receipts: [{ duplicate: false, partition: 0, offset: 0 }] },
      { receipts: [{ duplicate: false, partition: 1, offset: 0 }] },
    ])
  })

  test('stores nothing when a group is refused, and says why for each', async (context) => {
    const { bench, file } = await withFullTopic(context)
    const before = contents(file)
    const groups = [
      group(TOPIC, 'a'),
      group(TOPIC, 'b', { priority: 'low' }),
      group(TOPIC, 'c', { id: 'c' }),
      group(TOPIC, 'd', { deliverAtMs: Date.now() + 60_000 }),
      group(FULL, 'e'),
    ]
    const refused = groups.map(() => 'POSTHORN_BACKLOG_FULL')
    assert.deepEqual(codesOf(await bench.engine.append(groups, { atomic: true })), refused)
    assert.deepEqual(contents(file), before)
    assert.deepEqual(codesOf(await bench.engine.append(groups)), [...groups.slice(1).map(() => 'stored'), refused[0]])
  })

  test('stores nothing when a topic is not there', async (context) => {
    const { bench, file } = await withFullTopic(context)
    const before = contents(file)
    const outcomes = await bench.engine.append([group(TOPIC, 'a'), group('nowhere', 'b')], { atomic: true })
    assert.deepEqual(codesOf(outcomes), ['POSTHORN_TOPIC_NOT_FOUND', 'POSTHORN_TOPIC_NOT_FOUND'])
    assert.deepEqual(contents(file), before)
  })

  test('leaves the other calls of the same turn alone', async (context) => {
    const { bench } = await withFullTopic(context)
    const before = bench.engine.append([group(TOPIC, 'before')])
    const refused = bench.engine.append([group(TOPIC, 'refused'), group(FULL, 'refused')], { atomic: true })
    const after = bench.engine.append([group(TOPIC, 'after')], { atomic: true })
    assert.deepEqual(codesOf((await Promise.all([before, refused, after])).flat()), [
      'stored',
      'POSTHORN_BACKLOG_FULL',
      'POSTHORN_BACKLOG_FULL',
      'stored',
    ])
    assert.deepEqual(await (await bench.source()).take(2), ['before', 'after'])
  })
})

async function withFullTopic(context: Parameters<typeof newFile>[0]) {
  const file = newFile(context)
  const bench = await Bench.make(context, file)
  await bench.engine.ensureTopic({ ...topicConfig, topic: FULL, maxBacklog: 1 })
  await bench.publish(['x'], { topic: FULL })
  return { bench, file }
}

function contents(file: string): unknown {
  const tables = ['batches', 'delayed', 'partitions', 'cursors', 'deduplication']
  return tables.map((table) => sql(file, `SELECT * FROM posthorn_${table}`))
}
