/** The SQL of the documentation runs on a file that Posthorn wrote; what is for psql, in postgres-sql.test.ts. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, describe, test } from 'node:test'
import { connect, topic } from 'posthorn'
import { blocksOf, isForPsql, readPages } from './pages.ts'

const folder = await mkdtemp(join(tmpdir(), 'posthorn-sql-'))
const file = join(folder, 'posthorn.db')
const post = await connect(`sqlite:${file}`)
await post.publish(topic<object>('order.placed'), { orderId: 'o-1', total: 40 }, { key: 'o-1' })
const database = new DatabaseSync(file)

after(async () => {
  database.close()
  await post.close()
  await rm(folder, { recursive: true, force: true })
})

const pages = await readPages()
const blocks = pages.flatMap((page) => blocksOf(page).map((block) => ({ page, block })))
const statements = blocks.filter(({ block }) => block.language === 'sql' && !isForPsql(block))

describe('SQL in the documentation', () => {
  for (const { page, block } of statements) {
    test(`${page.path}:${block.line}`, async () => {
      const backup = join(folder, `backup-${block.line}.db`)
      const isBackup = block.code.startsWith('VACUUM INTO')
      const rows = database.prepare(block.code.replace(/'[^']*\.db'/, `'${backup}'`)).all()
      if (isBackup) assert.ok((await stat(backup)).size > 0)
      else assert.ok(rows.length > 0, 'nothing was found')
    })
  }

  test('there is SQL', () => assert.ok(statements.length >= 3))
})
