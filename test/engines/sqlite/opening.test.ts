/** What becomes of a connection that cannot be opened, and of the file that it was given. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { isAtLeast, SCHEMA_VERSION } from '../../../src/engines/sqlite/store/file/migrate.ts'
import { Bench, coded, folder, newFile, sql, TOPIC } from './bench.ts'
import { runAsNobody } from './processes/nobody.ts'

describe('opening', { concurrency: 2 }, () => {
  test('a file that is no database is refused, and left as it was', async (context) => {
    for (const content of ['short', 'Dear diary. '.repeat(1_000)]) {
      const file = newFile(context)
      writeFileSync(file, content)
      await assert.rejects(Bench.open(context, file), coded('POSTHORN_NOT_A_DATABASE'))
      assert.equal(readFileSync(file, 'utf8'), content)
      assert.ok(!existsSync(`${file}-wal`) && !existsSync(`${file}-wake`))
    }
  })

  test('a file of a newer Posthorn is refused, and left as it was', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.engine.close()
    {
      using database = new DatabaseSync(file)
      database.exec(`PRAGMA journal_mode = DELETE;
        UPDATE posthorn_meta SET value = ${SCHEMA_VERSION + 1} WHERE name = 'schema_version'`)
    }
    const before = readFileSync(file)
    await assert.rejects(Bench.open(context, file), coded('POSTHORN_SCHEMA_TOO_NEW'))
    assert.ok(before.equals(readFileSync(file)))
  })

  test("the user's own tables stay, in a file that they share", async (context) => {
    const file = newFile(context)
    {
      using database = new DatabaseSync(file)
      database.exec("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('Ada')")
    }
    await (await Bench.make(context, file)).publish(['a'])
    assert.deepEqual(
      sql(file, 'SELECT name FROM users').map((row) => row.name),
      ['Ada'],
    )
  })

  test('a link to the file is as good as the file', async (context) => {
    const file = newFile(context)
    const link = join(folder(context), 'link.db')
    symlinkSync(file, link)
    const bench = await Bench.make(context, link)
    await bench.publish(['by the link'])
    const direct = await Bench.open(context, file)
    assert.deepEqual(await (await direct.source()).take(1), ['by the link'])
    assert.deepEqual(readdirSync(dirname(link)), ['link.db'])
  })

  test('folders that are missing are made', async (context) => {
    const file = join(folder(context), 'not', 'yet', 'store.db')
    await Bench.make(context, file)
    assert.ok(existsSync(file))
  })

  test('a folder that is a file, and a file that is a folder, are refused', async (context) => {
    const file = newFile(context)
    writeFileSync(file, 'x')
    await assert.rejects(Bench.open(context, join(file, 'store.db')), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    const path = join(folder(context), 'folder.db')
    mkdirSync(path)
    await assert.rejects(Bench.open(context, path), coded('POSTHORN_STORAGE_UNAVAILABLE'))
  })

  for (const [problem, address] of [
    ['no file', ''],
    ['an unknown parameter', 'store.db?mode=ro'],
    ['a limit that is no number', 'store.db?maxBytes=plenty'],
    ['a limit that holds nothing', 'store.db?maxBytes=1000'],
    ['a percent sign of its own', '50%.db'],
  ] as const) {
    test(`an address with ${problem} is refused`, async (context) => {
      const path = address === '' ? '' : join(folder(context), address)
      await assert.rejects(Bench.open(context, path), coded('POSTHORN_INVALID_OPTION'))
    })
  }

  test('a file or a folder that may not be written is refused when it is opened', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can start a process without permissions')
    const file = newFile(context)
    await (await Bench.make(context, file)).engine.close()
    chmodSync(dirname(file), 0o777)
    chmodSync(file, 0o444)
    assert.equal(await runAsNobody(file), 'POSTHORN_STORAGE_READ_ONLY', 'a read-only file')
    chmodSync(file, 0o666)
    assert.equal(await runAsNobody(file), 'opened', 'a file that may be written')
    chmodSync(dirname(file), 0o555)
    assert.equal(await runAsNobody(file), 'POSTHORN_STORAGE_READ_ONLY', 'a read-only folder')
  })

  test('SQLite has to be new enough', () => {
    assert.ok(isAtLeast('3.51.3', [3, 51, 3]))
    assert.ok(isAtLeast('3.53', [3, 51, 3]))
    assert.ok(isAtLeast('4.0.0', [3, 51, 3]))
    assert.ok(!isAtLeast('3.51.2', [3, 51, 3]))
    assert.ok(!isAtLeast('3.9.12', [3, 51, 3]))
    assert.ok(!isAtLeast('3.51', [3, 51, 3]))
  })

  test('many connections that open one new file at the same moment all succeed', async (context) => {
    const file = newFile(context)
    const benches = await Promise.all(Array.from({ length: 6 }, () => Bench.open(context, file)))
    await (await Bench.make(context, file)).publish(['a'])
    for (const bench of benches) assert.equal((await bench.engine.admin.topics())[0]?.topic, TOPIC)
  })
})
