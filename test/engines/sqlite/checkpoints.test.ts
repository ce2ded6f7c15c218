/** When the write-ahead log is copied into the database. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import { Connection } from '../../../src/engines/sqlite/store/file/connection.ts'
import { Checkpoints } from '../../../src/engines/sqlite/writer/checkpoints.ts'
import { newFile } from './bench.ts'

const MEGABYTE = 2 ** 20

describe('a checkpoint is due', () => {
  test('in a quiet moment for a small log, under load for a large one only, whoever wrote it', (context) => {
    const { checkpoints, write } = setUp(context)
    write(0.25)
    assert.equal(checkpoints.isDue(true), false)
    write(1)
    assert.equal(checkpoints.isDue(true), true)
    assert.equal(checkpoints.isDue(false), false)
    write(32)
    assert.equal(checkpoints.isDue(false), true)
    checkpoints.run()
    assert.equal(checkpoints.isDue(true), false)
  })

  test("after a commit of the user's own connection, before SQLite would run it within one", (context) => {
    const { checkpoints, write } = setUp(context)
    write(2.5)
    assert.equal(checkpoints.isDue(false), false)
    checkpoints.userCommitted()
    assert.equal(checkpoints.isDue(false), true)
    checkpoints.run()
    write(2.5)
    assert.equal(checkpoints.isDue(false), false)
  })

  test('only for what came since the last one, while a reader keeps the log from being copied', (context) => {
    const { checkpoints, write, user } = setUp(context)
    user.exec('BEGIN; SELECT count(*) FROM filler')
    const writer = new DatabaseSync(user.location()!)
    context.after(() => writer.close())
    write(1, writer)
    checkpoints.run()
    assert.equal(checkpoints.isDue(true), false)
    write(1, writer)
    assert.equal(checkpoints.isDue(true), true)
    user.exec('ROLLBACK')
    checkpoints.run()
    assert.equal(checkpoints.isDue(true), false)
  })
})

function setUp(context: TestContext) {
  const file = newFile(context)
  const connection = Connection.open({ file }, () => {})
  const user = new DatabaseSync(file)
  context.after(() => {
    user.close()
    connection.close()
  })
  user.exec('CREATE TABLE filler (bytes BLOB)')
  const write = (megabytes: number, database = user) => {
    database.exec('PRAGMA wal_autocheckpoint = 0')
    database.prepare('INSERT INTO filler VALUES (zeroblob(?))').run(Math.round(megabytes * MEGABYTE))
  }
  return { checkpoints: new Checkpoints(connection), write, user }
}
