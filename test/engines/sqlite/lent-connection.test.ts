/** The connection that a transactional handler is given: of use only while it runs. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { newGroup, newMessage } from '../../conformance/messages.ts'
import { coded, sql } from './bench.ts'
import { effects, insert, leased, write } from './effects.ts'

describe("a transactional handler's connection", { concurrency: 2 }, () => {
  for (const ending of ['succeeds', 'fails']) {
    test(`what one that ${ending} leaves behind does not reach the transaction of the next one`, async (context) => {
      const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
      const late: (() => unknown)[] = []
      const first = reader.source.transact(grant.lease, 0, async (transaction) => {
        const tx = transaction as DatabaseSync
        const statement = tx.prepare("INSERT INTO effects (name) VALUES ('late') RETURNING id")
        const store = tx.createTagStore()
        late.push(
          () => insert(tx, 'late'),
          () => tx.isOpen,
          () => statement.run(),
          () => statement.iterate(),
          () => store.run`INSERT INTO effects (name) VALUES ('late')`,
          () => bench.engine.appendIn(tx, newGroup([newMessage('late', Date.now())])),
        )
        const rows = tx.prepare('SELECT 1 AS number UNION SELECT 2').iterate()
        assert.deepEqual({ ...rows.next().value }, { number: 1 })
        late.push(() => rows.next())
        if (ending === 'fails') throw new Error('no')
      })
      if (ending === 'fails') await assert.rejects(first, /no/)
      else assert.equal(await first, 'committed')
      const outcome = await reader.source.transact(grant.lease, 1, async (tx) => {
        for (const act of late) await assert.rejects(async () => act(), coded('POSTHORN_INVALID_TRANSACTION'), `${act}`)
        insert(tx, 'b')
      })
      assert.equal(outcome, 'committed')
      assert.deepEqual(effects(file), ['b'])
    })
  }

  test('one that reads a query half leaves the next one the newest state', async (context) => {
    const { reader, grant, file } = await leased(context, ['a', 'b'])
    sql(file, "INSERT INTO effects (name) VALUES ('x'), ('y')")
    await reader.source.transact(grant.lease, 0, async (tx) => {
      ;(tx as DatabaseSync).prepare('SELECT name FROM effects').iterate().next()
    })
    sql(file, "INSERT INTO effects (name) VALUES ('z')")
    assert.equal(await reader.source.transact(grant.lease, 1, write('b')), 'committed')
    assert.deepEqual(effects(file), ['x', 'y', 'z', 'b'])
  })

  test('the connection that one is given is a connection of node:sqlite in all else', async (context) => {
    const { reader, grant } = await leased(context, ['a'])
    const outcome = await reader.source.transact(grant.lease, 0, async (transaction) => {
      assert.ok(transaction instanceof DatabaseSync)
      assert.equal(transaction.isTransaction, true)
      transaction.function('double', (value) => Number(value) * 2)
      transaction.exec('CREATE TABLE numbers (number INTEGER)')
      const statement = transaction.prepare('INSERT INTO numbers VALUES (double(?))')
      assert.deepEqual(
        [1, 2].map((number) => statement.run(number).changes),
        [1, 1],
      )
      const select = transaction.prepare('SELECT number FROM numbers ORDER BY 1')
      const numbers = () => [...select.iterate()].map(({ number }) => number)
      assert.deepEqual(
        [numbers(), numbers()],
        [
          [2, 4],
          [2, 4],
        ],
      )
      for (const { number } of select.iterate()) if (number === 2) break
      assert.equal(transaction.createTagStore().get`SELECT max(number) AS most FROM numbers`?.most, 4)
      assert.throws(() => transaction.exec('nonsense'), /syntax error/)
    })
    assert.equal(outcome, 'committed')
  })
})
