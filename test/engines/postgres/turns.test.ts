import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { OutboxStage, topicConfig } from './outbox-stage.ts'

const IMPOSSIBLE = { name: 'test_impossible', text: 'SELECT $1::bigint' }

describe('a turn', { skip: await whyNoPostgres() }, () => {
  test('whose work has a value that the server cannot take fails for that work alone', async (context) => {
    const stage = await OutboxStage.make(context, { relays: false })
    const { topic } = topicConfig
    const config = {
      topic,
      subscription: 'all',
      maxCrashes: 3,
      ordered: false,
      maxParked: 100,
      start: { at: 'earliest' as const },
    }
    await stage.topics.ensureSubscription(config)
    const key = await stage.topics.findSubscription(config)
    const bad = stage.turns.run(key, ({ rows }) => rows.rows(IMPOSSIBLE, '0.5'))
    const good = stage.turns.run(key, async ({ state }) => {
      state.sources.push('good')
    })
    await assert.rejects(bad, { code: 'POSTHORN_STORAGE_FAILED' })
    await good
    assert.deepEqual(await stage.turns.run(key, async ({ state }) => [...state.sources]), ['good'])
  })
})
