/** The command dies at any moment, and is run again. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { connect } from 'posthorn'
import { seededRandom, systemClock } from '../../src/environment/index.ts'
import { reopenStore } from '../../src/moving/index.ts'
import { numbersTo } from '../conformance/messages.ts'
import { Bench, newFile } from '../engines/sqlite/bench.ts'
import { newDatabase, whyNoPostgres } from '../servers/shared-postgres.ts'
import { type Ended, migrate, posthorn } from './command.ts'
import { contentsOfDatabase, contentsOfFile, withClient } from './contents.ts'
import { fillStore, MAILS, ORDERS } from './filled-store.ts'

const KILLS = 6
const DYING = new URL('./processes/dying.ts', import.meta.url).href

/** Dies when it sends something to the server for the nth time. */
function dyingMigrate(file: string, url: string, sends: number | undefined, isAfter = false): Promise<Ended> {
  return posthorn(['migrate', '--from', `sqlite:${file}`, '--to', url], {
    preload: DYING,
    environment: {
      ...(sends !== undefined && { POSTHORN_SENDS: String(sends) }),
      POSTHORN_SENDS_AFTER: isAfter ? 'yes' : 'no',
    },
  })
}

async function emptyDatabase(context: TestContext): Promise<string> {
  const { url, drop } = await newDatabase()
  context.after(drop)
  return url
}

async function filledFile(context: TestContext): Promise<string> {
  const file = newFile(context)
  await fillStore(context, file)
  return file
}

/** How often a whole run sends something. */
async function countSends(context: TestContext, file: string): Promise<number> {
  const { code, log } = await dyingMigrate(file, await emptyDatabase(context), undefined)
  assert.equal(code, 0, log)
  await reopenStore(`sqlite:${file}`, systemClock)
  return Number(/^sent (\d+) times$/m.exec(log)![1])
}

/** What applications would see; nothing when there are no tables yet. */
async function topicsIn(url: string): Promise<number> {
  return withClient(url, async (client) => {
    const found = await client.query("SELECT to_regclass('topics') IS NOT NULL AS found")
    if (!found.rows[0].found) return 0
    return (await client.query('SELECT count(*)::int AS topics FROM topics')).rows[0].topics
  })
}

describe('posthorn migrate, killed and run again', { skip: await whyNoPostgres(), concurrency: 2 }, () => {
  for (const isAfter of [false, true]) {
    test(`at places all over its way, ${isAfter ? 'after' : 'before'} it sends something`, async (context) => {
      const file = await filledFile(context)
      const sends = await countSends(context, file)
      const url = await emptyDatabase(context)
      const whole = contentsOfFile(file)
      const seed = Math.floor(Math.random() * 1e6)
      context.diagnostic(`seed ${seed}`)
      const random = seededRandom(seed)
      let kills = 0
      for (const step of numbersTo(KILLS)) {
        const place = 1 + Math.floor(((step + random.number()) / KILLS) * sends)
        const { code, log } = await dyingMigrate(file, url, place, isAfter)
        assert.ok(code === undefined || code === 0, log)
        if (code === undefined) kills++
        const topics = await topicsIn(url)
        assert.ok(topics === 0 || topics === whole.topics!.length, `${topics} topics at ${place} of ${sends}`)
      }
      assert.ok(kills >= KILLS / 2, `it died only ${kills} times`)
      const last = await migrate(file, url)
      assert.equal(last.code, 0, last.log)
      assert.deepEqual(await contentsOfDatabase(url), whole)
    })
  }

  test('when it is about to commit, and when it just has', async (context) => {
    const file = await filledFile(context)
    const sends = await countSends(context, file)
    for (const back of [0, 1, 2, 3]) {
      const url = await emptyDatabase(context)
      await dyingMigrate(file, url, sends - back, back % 2 === 1)
      const { code, log } = await migrate(file, url)
      assert.equal(code, 0, log)
      assert.deepEqual(await contentsOfDatabase(url), contentsOfFile(file))
      await reopenStore(`sqlite:${file}`, systemClock)
    }
  })

  test('and meanwhile nobody can begin to use the target', async (context) => {
    const file = await filledFile(context)
    const sends = await countSends(context, file)
    const url = await emptyDatabase(context)
    assert.equal((await dyingMigrate(file, url, Math.floor(sends * 0.6))).code, undefined)
    await assert.rejects(connect(url), { code: 'POSTHORN_MOVE_UNFINISHED', message: new RegExp(file) })
    const { code, log } = await migrate(file, url)
    assert.equal(code, 0, log)
    await (await connect(url)).close()
  })

  test('after the file was used again meanwhile', async (context) => {
    const file = await filledFile(context)
    const sends = await countSends(context, file)
    const url = await emptyDatabase(context)
    assert.equal((await dyingMigrate(file, url, Math.floor(sends * 0.6))).code, undefined)
    const arrived = await withClient(url, (client) => client.query('SELECT DISTINCT topic_id FROM batches'))
    assert.equal(arrived.rowCount, 2, 'it died before batches of both topics had arrived')
    const bench = await Bench.open(context, file)
    await bench.engine.admin.purge(MAILS)
    await bench.publish([1, 2, 3], { topic: MAILS })
    await bench.engine.admin.deleteTopic(ORDERS)
    await bench.engine.ensureTopic({
      topic: ORDERS,
      kind: 'topic',
      partitions: 2,
      deduplicationWindowMs: 1_000,
      retention: { maxAgeMs: 1e9, dropUnread: false },
    })
    await bench.publish([1, 2, 3], { topic: ORDERS })
    await bench.engine.close()
    const { code, log } = await migrate(file, url)
    assert.equal(code, 0, log)
    assert.deepEqual(await contentsOfDatabase(url), contentsOfFile(file))
  })
})
