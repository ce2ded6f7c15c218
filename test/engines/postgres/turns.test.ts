import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Transaction } from '../../../src/engines/postgres/database/statement.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { OutboxStage, topicConfig } from './outbox-stage.ts'

/** The server says that it was started at another time. */
function startedLater(rows: Transaction): Transaction {
  return {
    rows: async <Row>(...asked: Parameters<Transaction['rows']>) => {
      const found = await rows.rows<object>(...asked)
      return found.map((row) => ('server' in row ? { ...row, server: 'later' } : row)) as Row[]
    },
    run: (...asked) => rows.run(...asked),
    send: (...asked) => rows.send(...asked),
  }
}

const IMPOSSIBLE = { name: 'test_impossible', text: 'SELECT $1::bigint' }

async function openStage(context: TestContext) {
  const stage = await OutboxStage.make(context, { relays: false })
  return { stage, key: await subscribe(stage, 'all') }
}

async function subscribe({ topics }: OutboxStage, subscription: string) {
  const { topic } = topicConfig
  const start = { at: 'earliest' } as const
  const config = { topic, subscription, maxCrashes: 3, ordered: false, maxParked: 100, start }
  await topics.ensureSubscription(config)
  return topics.findSubscription(config)
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

  test('that knew its subscription reads it again when another one finds a new server meanwhile', async (context) => {
    const { stage, key } = await openStage(context)
    const other = await subscribe(stage, 'other')
    const { database, turns } = stage
    await turns.run(key, async () => {})
    const openOther = () => database.transaction((rows) => turns.open(startedLater(rows), [other.subscriptionId], []))
    const opened = await database.transaction((rows) => {
      const there = startedLater(rows)
      const find: Transaction['rows'] = async (statement, ...values) => {
        const found = await there.rows<never>(statement, ...values)
        if (statement.name === 'turns_load') await openOther()
        return found
      }
      return turns.open({ ...there, rows: find }, [key.subscriptionId], [])
    })
    assert.deepEqual(opened.get(key.subscriptionId)?.state.sources, [])
  })
})
