/** The writer itself, on this thread and by a clock of the test, so that the file system can be made to fail under it. */
import assert from 'node:assert/strict'
import fs, { existsSync, statSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import type { CallResult } from '../../../src/engines/sqlite/protocol.ts'
import { coded, folder, newFile, sql } from './bench.ts'
import { type Call, LEASE_MS, START_MS, Stage } from './stage.ts'

/** Replaces a function of `node:fs`, for modules that imported it by name too, while `work` runs. */
function withFileSystem<Name extends 'fdatasyncSync' | 'openSync' | 'fsyncSync'>(
  test: TestContext,
  name: Name,
  replacement: (original: (typeof fs)[Name], ...values: never[]) => unknown,
  work: () => void,
): void {
  const original = fs[name]
  const mocked = test.mock.method(fs, name, (...values: never[]) => replacement(original, ...values))
  syncBuiltinESMExports()
  try {
    work()
  } finally {
    mocked.mock.restore()
    syncBuiltinESMExports()
  }
}

function failing(code: string): () => never {
  return () => {
    throw Object.assign(new Error(`${code}: refused by the test`), { code })
  }
}

function errorCode(result: CallResult): string | undefined {
  return 'error' in result ? result.error.code : undefined
}

describe('the writer', () => {
  test('a failed sync leaves the outcome unknown, gives everything back and ends the thread', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file)
    stage.append('held')
    const [grant] = stage.pull()
    withFileSystem(context, 'fdatasyncSync', failing('EIO'), () => {
      assert.equal(errorCode(stage.append('doubtful')), 'POSTHORN_OUTCOME_UNKNOWN')
    })
    const last = stage.turns.at(-1)
    assert.equal(last?.ended?.code, 'POSTHORN_STORAGE_FAILED')
    assert.deepEqual(last.lost?.held, [{ source: 1, leases: [grant?.lease] }])
    assert.deepEqual(sql(file, 'SELECT session_id, crashes FROM posthorn_leases'), [
      Object.assign(Object.create(null), { session_id: null, crashes: 0 }),
    ])
  })

  test('after a failed sync, the next thread begins the log anew, or does not start', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file)
    stage.append('stored')
    assert.ok(statSync(`${file}-wal`).size > 0)
    const next = () => new Stage(context, file, { afterFailedSync: true })
    {
      using reader = new DatabaseSync(file)
      reader.exec('BEGIN; SELECT count(*) FROM posthorn_batches')
      reader.prepare('SELECT * FROM posthorn_batches').all()
      assert.throws(next, coded('POSTHORN_STORAGE_UNAVAILABLE'))
    }
    next()
    // What the new thread wrote while it opened the file is in the database, and the log holds nothing.
    assert.equal(statSync(`${file}-wal`).size, 0)
  })

  test('a thread that follows another opens the same file and no other', (context) => {
    const file = newFile(context)
    const { identity } = Stage.ready(context, file).writer
    assert.ok(identity)
    new Stage(context, file, { identity })
    fs.renameSync(file, `${file}.away`)
    assert.throws(() => new Stage(context, file, { identity }), coded('POSTHORN_STORAGE_REPLACED'))
    assert.ok(!existsSync(file))
  })

  for (const ending of ['', '-wal']) {
    test(`nothing is acknowledged once store.db${ending} is no longer the file that is open`, (context) => {
      const file = newFile(context)
      const stage = Stage.ready(context, file)
      fs.renameSync(`${file}${ending}`, `${file}.away`)
      fs.writeFileSync(`${file}${ending}`, '')
      assert.equal(errorCode(stage.append('lost')), 'POSTHORN_STORAGE_REPLACED')
      assert.equal(stage.turns.at(-1)?.ended?.code, 'POSTHORN_STORAGE_REPLACED')
    })
  }

  test('a process without descriptors to spare is told when it opens the file', (context) => {
    const refuseLog = (original: typeof fs.openSync, ...values: Parameters<typeof fs.openSync>) =>
      String(values[0]).endsWith('-wal') ? failing('EMFILE')() : original(...values)
    const file = newFile(context)
    withFileSystem(context, 'openSync', refuseLog as never, () => {
      assert.throws(() => new Stage(context, file), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    })
  })

  test('every folder that is made is synced into the one above it, and the new file into its own', (context) => {
    const top = folder(context)
    const file = join(top, 'one', 'two', 'store.db')
    const paths = new Map<number, string>()
    const synced = new Set<string>()
    const note = (original: typeof fs.openSync, ...values: Parameters<typeof fs.openSync>) => {
      const descriptor = original(...values)
      paths.set(descriptor, String(values[0]))
      return descriptor
    }
    const noteSync = (original: typeof fs.fsyncSync, descriptor: number) => {
      synced.add(paths.get(descriptor)!)
      original(descriptor)
    }
    withFileSystem(context, 'openSync', note as never, () =>
      withFileSystem(context, 'fsyncSync', noteSync as never, () => new Stage(context, file)),
    )
    assert.deepEqual([...synced].sort(), [top, join(top, 'one'), dirname(file)])
  })

  test('sessions that ran out while nobody looked have a moment more after a process starts', (context) => {
    const file = newFile(context)
    const stalled = Stage.ready(context, file)
    stalled.append('a')
    stalled.pull()
    const fresh = new Stage(context, file, {}, START_MS + LEASE_MS + 1)
    const held = () => sql(file, 'SELECT count(*) AS count FROM posthorn_sessions')[0]?.count
    fresh.writer.turn([])
    assert.equal(held(), 1)
    fresh.nowMs += 600
    fresh.writer.turn([])
    assert.equal(held(), 0)
  })

  test('what a closing source or a given-up pull holds is given back, though the file refuses at first', (context) => {
    const file = newFile(context)
    const stage = Stage.ready(context, file)
    stage.append('a')
    stage.pull()
    const held = () => sql(file, 'SELECT count(*) AS count FROM posthorn_leases WHERE session_id IS NOT NULL')[0]?.count
    sql(file, "CREATE TRIGGER refuse BEFORE UPDATE ON posthorn_leases BEGIN SELECT RAISE(ABORT, 'refused'); END")
    stage.writer.turn([{ kind: 'unpull', source: 1, pull: 1 }])
    assert.equal(held(), 1)
    sql(file, 'DROP TRIGGER refuse')
    stage.writer.turn([])
    assert.equal(held(), 0)

    stage.pull()
    assert.equal(held(), 1)
    sql(file, "CREATE TRIGGER refuse BEFORE UPDATE ON posthorn_leases BEGIN SELECT RAISE(ABORT, 'refused'); END")
    assert.equal(errorCode(stage.call({ kind: 'closeSource', source: 1 } as Call)), 'POSTHORN_STORAGE_FAILED')
    sql(file, 'DROP TRIGGER refuse')
    stage.writer.turn([])
    assert.equal(held(), 0)
    assert.equal(sql(file, 'SELECT count(*) AS count FROM posthorn_session_subscriptions')[0]?.count, 0)
  })
})
