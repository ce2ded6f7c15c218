/** Processes that run while a newer version of Posthorn changes the tables. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { silentLogger } from 'posthorn'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { MIGRATIONS, type Migration } from '../../../src/engines/postgres/sql/migrations.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { Publishing } from './faults-publishing.ts'
import { coded, events, eventually, Inbox, newStore, open, settled } from './faults-stage.ts'
import { openDatabase, query } from './space.ts'

const HARMLESS: Migration = { text: 'ALTER TABLE @.topics ADD COLUMN note text', compatibleFrom: 1 }
const INCOMPATIBLE: Migration = { text: 'ALTER TABLE @.batches RENAME TO parcels', compatibleFrom: 2 }
const TOO_NEW = coded('POSTHORN_SCHEMA_TOO_NEW')

function deploy(context: TestContext, url: string, migration: Migration, noticeSeconds = 0): Promise<void> {
  const options = { migrations: [...MIGRATIONS, migration], noticeSeconds }
  return migrate(openDatabase(context, url), options)
}

/** As processes of the newer version would find it, had they been written. */
async function undo(context: TestContext, url: string): Promise<void> {
  const database = openDatabase(context, url)
  await query(database, 'ALTER TABLE @.parcels RENAME TO batches')
  await query(database, 'UPDATE @.schema_version SET version = 1, compatible_from = 1')
}

describe('during a rolling deployment', { skip: await whyNoPostgres() }, () => {
  test('processes of the version before go on, and new ones of it start', async (context) => {
    const { url } = await newStore(context)
    const [consumer, publisher] = [await open(context, url), await open(context, url)]
    const inbox = new Inbox()
    await consumer.subscribe(events, 'all', inbox.handler).ready
    const publishing = new Publishing(publisher, 'publisher')
    await publishing.goesOn()
    await deploy(context, url, HARMLESS)
    await publishing.goesOn()
    const late = await open(context, url)
    await late.publish(events, { label: 'late' })
    const acknowledged = await publishing.stop()
    assert.equal(publishing.refused, 0)
    await inbox.has([...acknowledged, 'late'])
    await settled(late)
    assert.equal(new Set(inbox.labels).size, inbox.labels.length)
  })

  for (const [how, parameters, noticeSeconds] of [
    ['are told', {}, 0.5],
    ['look', { pooling: 'transaction' }, 1.5],
  ] as const) {
    test(`processes that cannot work with the new tables ${how}, and stop before`, async (context) => {
      const { url } = await newStore(context, parameters)
      const codes: unknown[] = []
      const logger = {
        ...silentLogger,
        error: (_: string, fields?: { code?: unknown }) => void codes.push(fields?.code),
      }
      const options = { environment: { logger }, lease: '1s' } as const
      const old = await open(context, url, options)
      const handled = Promise.withResolvers<void>()
      const begun = new Inbox()
      const subscription = old.subscribe(events, 'all', async (event) => {
        await begun.handler(event)
        await handled.promise
      })
      await subscription.ready
      await old.publish(events, { label: 'held' })
      await begun.has(['held'])
      const deployed = deploy(context, url, INCOMPATIBLE, noticeSeconds)
      await eventually(() => assert.ok(codes.length > 0))
      await assert.rejects(old.publish(events, { label: 'refused' }), TOO_NEW)
      await assert.rejects(old.admin.subscriptions(), TOO_NEW)
      await deployed
      await assert.rejects(open(context, url), TOO_NEW)
      handled.resolve()
      await old.close()
      assert.deepEqual([...new Set(codes)], ['POSTHORN_SCHEMA_TOO_NEW'])
      await undo(context, url)
      const next = await open(context, url, options)
      const inbox = new Inbox()
      await next.subscribe(events, 'all', inbox.handler).ready
      await inbox.has(['held'])
      await settled(next)
      assert.deepEqual(await next.admin.checkIntegrity(), [])
      assert.deepEqual(inbox.labels, ['held'])
    })
  }
})
