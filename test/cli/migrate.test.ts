import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import type { ErrorCode } from '../../src/errors.ts'
import { assertCode } from '../conformance/assertions.ts'
import { Bench, HERE, newFile, TOPIC } from '../engines/sqlite/bench.ts'
import { Child } from '../engines/sqlite/processes/child.ts'
import { VERSION_1 } from '../engines/sqlite/schemas/version-1.ts'
import { newDatabase, whyNoPostgres } from '../servers/shared-postgres.ts'
import { type Ended, migrate, posthorn } from './command.ts'
import { type Contents, contentsOfDatabase, contentsOfFile, returnedIn, withClient } from './contents.ts'
import { fillStore } from './filled-store.ts'

async function emptyDatabase(context: TestContext): Promise<string> {
  const { url, drop } = await newDatabase()
  context.after(drop)
  return url
}

/** Through a connection of its own, which makes the file if it is not there. */
function change(file: string, statements: string): void {
  using database = new DatabaseSync(file)
  database.exec(statements)
}

/** A file with a topic of three messages that one subscription has not had. */
async function smallFile(context: TestContext): Promise<string> {
  const file = newFile(context)
  const bench = await Bench.make(context, file)
  await bench.publish(['a', 'b', 'c'])
  await bench.engine.close()
  return file
}

function assertRefused({ code, output, log }: Ended, error: ErrorCode, says: RegExp): void {
  assert.equal(code, 1, log)
  assert.equal(output, '')
  assert.match(log, new RegExp(`\\[${error}\\]`))
  assert.match(log, says)
}

async function assertMoved(file: string, url: string): Promise<Contents> {
  const { code, log } = await migrate(file, url)
  assert.equal(code, 0, log)
  const contents = await contentsOfDatabase(url)
  assert.deepEqual(contents, contentsOfFile(file))
  return contents
}

describe('posthorn migrate', { skip: await whyNoPostgres(), concurrency: 2 }, () => {
  test('brings everything along', async (context) => {
    const [file, url] = [newFile(context), await emptyDatabase(context)]
    await fillStore(context, file)
    const { code, output, log } = await migrate(file, url, '--json')
    assert.equal(code, 0, log)
    const before = contentsOfFile(file)
    assert.deepEqual(await contentsOfDatabase(url), before)
    const report = JSON.parse(output) as { wasComplete: boolean; moved: Record<string, number> }
    assert.equal(report.wasComplete, false)
    for (const [name, rows] of Object.entries(before)) {
      assert.ok(rows.length > 0, `there was nothing of ${name} to move`)
      if (name in report.moved) assert.equal(report.moved[name], rows.length)
    }
    assert.ok(before.batches!.every(({ isIntact }) => isIntact))
  })

  test('gives back what a killed process had under lease, its crash counted', async (context) => {
    const [file, url] = [newFile(context), await emptyDatabase(context)]
    const bench = await Bench.make(context, file)
    await bench.publish(['a', 'b', 'c', 'd', 'e'])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    await reader.source.settle([{ lease: grant!.lease, acked: [1, 3], exceptions: [] }])
    await bench.crash()
    assert.equal((await migrate(file, url)).code, 0)
    assert.deepEqual(await returnedIn(url), { [HERE.subscription]: ['0/0 1', '0/3 1', '0/4 1'] })
  })

  test('lets new dead letters follow those that it brought along', async (context) => {
    const [file, url] = [newFile(context), await emptyDatabase(context)]
    await fillStore(context, file)
    const { deadLetters } = await assertMoved(file, url)
    const next = await withClient(url, (client) => {
      return client.query("SELECT nextval(pg_get_serial_sequence('dead_letters', 'dead_letter_id')) AS id")
    })
    assert.equal(next.rows[0].id, Number(deadLetters!.at(-1)!.number) + 1)
  })

  test('says the same again, and changes nothing, when all was moved before', async (context) => {
    const [file, url] = [await smallFile(context), await emptyDatabase(context)]
    const first = JSON.parse((await migrate(file, url, '--json')).output)
    const before = await contentsOfDatabase(url)
    await withClient(url, (client) => client.query("UPDATE subscriptions SET subscription = 'in use by now'"))
    const second = JSON.parse((await migrate(file, url, '--json')).output)
    assert.deepEqual(second, { ...first, wasComplete: true })
    const { subscriptions, ...after } = await contentsOfDatabase(url)
    assert.deepEqual(after.batches, before.batches)
    assert.equal(subscriptions![0]!.subscription, 'in use by now')
  })

  test('keeps a moved file from being used, and refuses one that was all the same', async (context) => {
    const [file, url] = [await smallFile(context), await emptyDatabase(context)]
    assert.equal((await migrate(file, url)).code, 0)
    await assert.rejects(Bench.open(context, file), (error: Error) => {
      assertCode(error, 'POSTHORN_STORE_MOVED')
      return error.message.includes(new URL(url).pathname) && !error.message.includes(new URL(url).password)
    })
    assert.match((await posthorn(['reopen', `sqlite:${file}`])).output, /^Reopened/)
    assert.match((await posthorn(['reopen', `sqlite:${file}`])).output, /was not moved/)
    const bench = await Bench.open(context, file)
    await bench.publish(['too late'])
    await bench.engine.close()
    assertRefused(await migrate(file, url), 'POSTHORN_TARGET_NOT_EMPTY', /has been used since/)
  })

  test('refuses a file in which a delayed message was cancelled since', async (context) => {
    const [file, url] = [newFile(context), await emptyDatabase(context)]
    const first = await Bench.make(context, file)
    for (const id of ['a', 'b']) await first.publish([id], { id, deliverAtMs: Date.now() + 3_600_000 })
    await first.engine.close()
    assert.equal((await migrate(file, url)).code, 0)
    await posthorn(['reopen', `sqlite:${file}`])
    const bench = await Bench.open(context, file)
    assert.partialDeepStrictEqual(await bench.engine.admin.cancel(TOPIC, 'a'), { delayed: 1 })
    await bench.engine.close()
    assertRefused(await migrate(file, url), 'POSTHORN_TARGET_NOT_EMPTY', /has been used since/)
  })

  test('moves a file to one target only, unless it is reopened', async (context) => {
    const [file, url, second] = [await smallFile(context), await emptyDatabase(context), await emptyDatabase(context)]
    assert.equal((await migrate(file, url)).code, 0)
    assertRefused(
      await migrate(file, second),
      'POSTHORN_STORE_MOVED',
      new RegExp(`moved to .*${new URL(url).pathname}`),
    )
    assert.equal((await migrate(await smallFile(context), second)).code, 0)
    await posthorn(['reopen', `sqlite:${file}`])
    await assertMoved(file, await emptyDatabase(context))
  })

  test('refuses a file that a process has open, and names those that consume', async (context) => {
    const [file, url] = [await smallFile(context), await emptyDatabase(context)]
    const publisher = Child.start(context, { file, role: 'open' })
    await publisher.reported('ready')
    assertRefused(await migrate(file, url), 'POSTHORN_STORE_IN_USE', /which consumes nothing/)
    const consumer = Child.start(context, { file, role: 'hold' })
    await consumer.reported('granted')
    const refused = await migrate(file, url)
    assertRefused(refused, 'POSTHORN_STORE_IN_USE', new RegExp(`in use by process ${consumer.process.pid} on `))
    await Promise.all([publisher.die(), consumer.die()])
    await assertMoved(file, url)
  })

  test('refuses a target that somebody uses', async (context) => {
    const [file, other, url] = [await smallFile(context), await smallFile(context), await emptyDatabase(context)]
    assert.equal((await migrate(other, url)).code, 0)
    assertRefused(await migrate(file, url), 'POSTHORN_TARGET_NOT_EMPTY', /was moved into it/)
    await withClient(url, (client) => client.query('DELETE FROM moves'))
    assertRefused(await migrate(file, url), 'POSTHORN_TARGET_NOT_EMPTY', new RegExp(`it has the topics ${TOPIC}`))
    await withClient(url, async (client) => {
      await client.query('TRUNCATE topics, partitions, floors, batches, subscriptions, states')
      await client.query(
        `INSERT INTO sessions (session_id, beat, beaten_at_ms, started_at_ms, lease_ms, host, pid)
         VALUES ('s', 1, $1, 0, 60000, 'elsewhere', 17)`,
        [Date.now()],
      )
    })
    assertRefused(await migrate(file, url), 'POSTHORN_STORE_IN_USE', /process 17 on elsewhere/)
    await withClient(url, (client) => client.query('UPDATE sessions SET beaten_at_ms = 0'))
    await assertMoved(file, url)
  })

  test('takes a file of an older version', async (context) => {
    const [file, url] = [newFile(context), await emptyDatabase(context)]
    change(file, `PRAGMA journal_mode = WAL; BEGIN; ${VERSION_1}; COMMIT`)
    const { subscriptions } = await assertMoved(file, url)
    assert.equal(subscriptions!.length, 2)
  })

  test('leaves damaged batches damaged, and brings the others along', async (context) => {
    const [file, url] = [await smallFile(context), await emptyDatabase(context)]
    const bench = await Bench.open(context, file)
    await bench.publish(['d'])
    await bench.engine.close()
    change(file, "UPDATE posthorn_batches SET data = replace(data, 'a', 'b') WHERE base_offset = 0")
    const { batches } = await assertMoved(file, url)
    assert.deepEqual(
      batches!.map(({ isIntact }) => isIntact),
      [false, true],
    )
  })

  test('refuses a file whose log has lost batches, and one with no store in it', async (context) => {
    const [file, url] = [await smallFile(context), await emptyDatabase(context)]
    const bench = await Bench.open(context, file)
    await bench.publish(['d'])
    await bench.engine.close()
    change(file, 'DELETE FROM posthorn_batches WHERE base_offset > 0')
    assertRefused(await migrate(file, url), 'POSTHORN_STORAGE_CORRUPT', /are missing from partition 0/)
    const foreign = newFile(context)
    change(foreign, 'CREATE TABLE users (name)')
    assertRefused(await migrate(foreign, url), 'POSTHORN_STORAGE_UNAVAILABLE', /no tables of Posthorn/)
    assertRefused(await migrate(`${foreign}-not`, url), 'POSTHORN_STORAGE_UNAVAILABLE', /there is no such file/)
  })
})
