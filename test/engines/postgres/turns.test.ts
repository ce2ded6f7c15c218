import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { OutboxStage, topicConfig } from './outbox-stage.ts'

const IMPOSSIBLE = { name: 'test_impossible', text: 'SELECT $1::bigint' }

async function openStage(context: TestContext) {
  const stage = await OutboxStage.make(context, { relays: false })
  const { topic } = topicConfig
  const start = { at: 'earliest' } as const
  const config = { topic, subscription: 'all', maxCrashes: 3, ordered: false, maxParked: 100, start }
  await stage.topics.ensureSubscription(config)
  return { stage, key: await stage.topics.findSubscription(config) }
}

describe('a turn', { skip: await whyNoPostgres() }, () => {
  test('takes nothing of another subscription that has the number of one that was known', async (context) => {
    const { stage, key } = await openStage(context)
    // As on a server that was restored from before the subscription was made.
    const others = { ...key, subscription: 'others' }
    await assert.rejects(
      stage.turns.run(others, async () => {}),
      { code: 'POSTHORN_SUBSCRIPTION_NOT_FOUND' },
    )
    await stage.turns.run(key, async () => {})
  })

  test('whose work has a value that the server cannot take fails for that work alone', async (context) => {
    const { stage, key } = await openStage(context)
    const bad = stage.turns.run(key, ({ rows }) => rows.rows(IMPOSSIBLE, '0.5'))
    const good = stage.turns.run(key, async ({ state }) => {
      state.sources.push('good')
    })
    await assert.rejects(bad, { code: 'POSTHORN_STORAGE_FAILED' })
    await good
    assert.deepEqual(await stage.turns.run(key, async ({ state }) => [...state.sources]), ['good'])
  })
})
