import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { queue, type TopicOptions, topic } from 'posthorn'
import { z } from 'zod'

describe('topic() and queue()', () => {
  test('fill in the defaults', () => {
    assert.deepEqual(topic('orders').config, {
      topic: 'orders',
      kind: 'topic',
      partitions: 1,
      deduplicationWindowMs: 3_600_000,
      retention: { maxAgeMs: 7 * 86_400_000, dropUnread: false },
    })
    assert.equal(queue('jobs').config.retention.maxAgeMs, 0)
    assert.equal(queue('jobs').kind, 'queue')
  })

  test('take what they are given', () => {
    const retention = { maxAge: '1d', maxBytes: 5_000, dropUnread: true } as const
    const definition = topic('orders', { partitions: 8, deduplicateFor: '5m', maxBacklog: 100, retention })
    assert.deepEqual(definition.config, {
      topic: 'orders',
      kind: 'topic',
      partitions: 8,
      deduplicationWindowMs: 300_000,
      maxBacklog: 100,
      retention: { maxAgeMs: 86_400_000, maxBytes: 5_000, dropUnread: true },
    })
  })

  test('split what has keys, so that processes can share it and keep its order', () => {
    const key = () => 'k'
    assert.equal(topic('orders', { key }).config.partitions, 8)
    assert.equal(queue('jobs', { key, partitions: 3 }).config.partitions, 3)
  })

  test('cannot be changed', () => {
    const definition = topic('orders')
    assert.throws(() => Object.assign(definition, { name: 'other' }), TypeError)
    assert.throws(() => Object.assign(definition.config, { partitions: 2 }), TypeError)
  })

  test('name the schema version by a URI, if there is a schema or a version', () => {
    assert.equal(topic('a/b', { schema: z.string() }).dataschema, 'urn:posthorn:a/b:1')
    assert.equal(topic('a', { version: 'v2 beta' }).dataschema, 'urn:posthorn:a:v2%20beta')
    assert.equal(topic('a').dataschema, undefined)
  })

  for (const name of ['', 'with space', 'a'.repeat(201), 'ümlaut', 5, undefined]) {
    test(`refuse the name ${String(name).slice(0, 20)}`, () => {
      assert.throws(() => topic(name as string), { code: 'POSTHORN_INVALID_NAME', message: /topic name/ })
      assert.throws(() => queue(name as string), { code: 'POSTHORN_INVALID_NAME', message: /queue name/ })
    })
  }

  const wrong: Record<string, unknown> = {
    'an unknown option': { partition: 3 },
    'options that are no object': 'fast',
    'no partitions': { partitions: 0 },
    'half a partition': { partitions: 1.5 },
    'a bad duration': { deduplicateFor: 'long' },
    'an unknown retention': { retention: { age: '1d' } },
    'a bad retention': { retention: { dropUnread: 'yes' } },
    'a bad whenFull': { whenFull: 'drop' },
    'a backlog of 0': { maxBacklog: 0 },
    'a key that is no function': { key: 'userId' },
    'a schema of another kind': { schema: { type: 'object' } },
    'a version that is neither': { version: 1.5 },
    'a message size of 0': { maxMessageBytes: 0 },
  }
  for (const [name, options] of Object.entries(wrong)) {
    test(`refuse ${name}`, () => {
      assert.throws(() => topic('t', options as TopicOptions<unknown>), { code: 'POSTHORN_INVALID_OPTION' })
    })
  }
})
