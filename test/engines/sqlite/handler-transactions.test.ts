/** Handlers whose effects, messages and acknowledgement commit together. */
import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { Source } from '../../../src/engine.ts'
import { retryWhileBusy } from '../../../src/engines/sqlite/handler-connection.ts'
import { connectSqlite } from '../../../src/engines/sqlite/index.ts'
import { silentLogger, systemClock, systemEnvironment } from '../../../src/environment/index.ts'
import { PosthornError } from '../../../src/errors.ts'
import { newGroup, newMessage } from '../../conformance/messages.ts'
import { Bench, coded, dataOf, eventually, HERE, newFile, type Reader, SUBSCRIPTION, sql, TOPIC } from './bench.ts'
import { effects, insert, leased, leases, prepared, topic, write } from './effects.ts'

describe("handlers in a transaction of the user's database", { concurrency: 2 }, () => {
  test('what the handler writes and publishes, and the acknowledgement, are there together', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a'])
    await bench.engine.ensureTopic(topic('out'))
    await bench.subscription({ topic: 'out', start: { at: 'earliest' } })
    const outcome = await reader.source.transact(grant.lease, 0, async (tx) => {
      insert(tx, 'a')
      const published = await bench.engine.appendIn(tx, newGroup([newMessage('from a', Date.now())], 'out'))
      assert.ok('receipts' in published)
      await setImmediate()
      assert.deepEqual([effects(file), leases(file)], [[], 1], 'nobody sees anything before the commit')
    })
    assert.equal(outcome, 'committed')
    assert.deepEqual([effects(file), leases(file)], [['a'], 0])
    assert.deepEqual(await (await bench.source({ topic: 'out' })).take(1), ['from a'])
    assert.deepEqual(await reader.ack([grant]), [grant.lease], 'it is settled already')
  })

  test('a handler that fails leaves nothing, and its error comes back as it is', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    const problem = new Error('no')
    const failing = reader.source.transact(grant.lease, 0, async (tx) => {
      insert(tx, 'undone')
      await bench.engine.appendIn(tx, newGroup([newMessage('undone', Date.now())]))
      await setImmediate()
      throw problem
    })
    await assert.rejects(failing, (error) => error === problem)
    assert.deepEqual([effects(file), leases(file)], [[], 1])
    assert.equal(await reader.source.transact(grant.lease, 1, write('b')), 'committed')
    assert.equal(await reader.source.transact(grant.lease, 0, write('a')), 'committed')
    assert.deepEqual([effects(file), leases(file)], [['b', 'a'], 0])
    assert.deepEqual(await reader.pullNow(), [])
  })

  test('many at once run one after the other, and each message of a range is settled by itself', async (context) => {
    const names = Array.from({ length: 50 }, (_, number) => `name-${number}`)
    const { bench, reader, grant, file } = await leased(context, names)
    let running = 0
    const outcomes = names.map((name, offset) =>
      reader.source.transact(grant.lease, offset, async (tx) => {
        assert.equal(++running, 1)
        await setImmediate()
        insert(tx, name)
        running--
      }),
    )
    assert.ok((await Promise.all(outcomes)).every((outcome) => outcome === 'committed'))
    assert.deepEqual(effects(file), names)
    assert.equal((await bench.state()).leased, 0)
  })

  test('two engines on one file: every effect once', async (context) => {
    const { bench, file } = await prepared(context)
    const other = await Bench.open(context, file)
    const numbers = Array.from({ length: 200 }, (_, number) => number)
    for (const number of numbers) await bench.publish([number])
    const work = async (reader: Reader) => {
      while (effects(file).length < numbers.length) {
        for (const grant of await reader.pullNow(10)) {
          for (const { offset, event } of grant.messages) {
            const outcome = await reader.source.transact(grant.lease, offset, write(String(event.data)))
            assert.equal(outcome, 'committed')
          }
        }
      }
    }
    await Promise.all([work(await bench.source()), work(await other.source())])
    assert.deepEqual(
      effects(file).toSorted((one, another) => Number(one) - Number(another)),
      numbers.map(String),
    )
  })

  test('processes that are killed at any moment: every effect once, and none by halves', async (context) => {
    const { bench, file } = await prepared(context)
    sql(file, 'CREATE TABLE totals (total INTEGER)')
    sql(file, 'INSERT INTO totals VALUES (0)')
    await bench.subscription({ maxCrashes: 100 })
    const numbers = Array.from({ length: 600 }, (_, number) => number)
    await bench.publish(numbers)
    for (let committed = 0; committed < numbers.length; committed = effects(file).length) {
      const child = fork(new URL('./processes/handling.ts', import.meta.url), [file, '300'])
      context.after(() => child.kill('SIGKILL'))
      let handled = 0
      child.on('message', () => handled++)
      const wanted = Math.min(150, numbers.length - committed)
      await eventually(() => assert.ok(handled >= wanted, `${handled} of ${wanted}`))
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    assert.deepEqual(
      effects(file).toSorted((one, another) => Number(one) - Number(another)),
      numbers.map(String),
    )
    assert.deepEqual(sql(file, 'SELECT total FROM totals')[0]!.total, numbers.length)
    await eventually(async () => assert.equal((await bench.state()).leased, 0))
  })

  test('without the lease the handler does not run', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    const { source: other } = await (await Bench.open(context, file)).source()
    const never = async () => assert.fail('the handler ran')
    assert.equal(await other.transact(grant.lease, 0, never), 'fenced')
    await reader.source.settle([{ lease: grant.lease, acked: [0, 1], exceptions: [] }])
    assert.equal(await reader.source.transact(grant.lease, 0, never), 'fenced')
    await bench.engine.admin.seek(HERE, { offset: 0 })
    assert.equal(await reader.source.transact(grant.lease, 1, never), 'fenced')
    await reader.source.close()
    assert.equal(await reader.source.transact(grant.lease, 1, never), 'fenced')
  })

  test('a session that was replaced: what was leased before is fenced, and what is leased since is not', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    assert.equal(await reader.source.transact(grant.lease, 0, write('a')), 'committed')
    await (await Bench.open(context, file)).state()
    sql(file, 'UPDATE posthorn_sessions SET lease_until_ms = 0')
    await eventually(async () => {
      await bench.engine.admin.topics()
      assert.equal(reader.lost.length, 1)
    })
    assert.equal(await reader.source.transact(grant.lease, 1, write('lost')), 'fenced')
    const [again] = await reader.pull()
    assert.equal(await reader.source.transact(again!.lease, 1, write('b')), 'committed')
    assert.deepEqual(effects(file), ['a', 'b'])
  })

  test('a retried message is settled and its steps are forgotten', async (context) => {
    const { reader, grant, file } = await leased(context, ['a'])
    await reader.source.recordStep(grant.lease, 0, 'charge', '1')
    const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
    const exceptions = [{ offset: 0, kind: 'retry', dueAtMs: 1, failure }] as const
    await reader.source.settle([{ lease: grant.lease, acked: [], exceptions }])
    const [again] = await reader.pull()
    assert.equal(await reader.source.transact(again!.lease, 0, write('a')), 'committed')
    for (const table of ['posthorn_retries', 'posthorn_steps'])
      assert.deepEqual(sql(file, `SELECT * FROM ${table}`), [])
  })

  test("a queue's message is deleted, and what waits behind a key goes on, in this process at once", async (context) => {
    const { bench, file } = await prepared(context, { kind: 'queue' })
    await bench.subscription({ ordered: true })
    await bench.publish(['first', 'second'], { key: 'k' })
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
    const exceptions = [
      { offset: 0, kind: 'retry', dueAtMs: 1, failure, key: 'k' },
      { offset: 1, kind: 'park', until: 'chain', key: 'k' },
    ] as const
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    for (const name of ['first', 'second']) {
      const [next] = await reader.pull()
      assert.deepEqual(dataOf([next!]), [name])
      assert.equal(await reader.source.transact(next!.lease, next!.messages[0]!.offset, write(name)), 'committed')
    }
    await eventually(() => assert.deepEqual(sql(file, 'SELECT * FROM posthorn_batches'), []))
  })

  test('the end of a lease is known to the thread, which does not take it for lost', async (context) => {
    const { bench, reader, grant } = await leased(context, ['a'], { leaseMs: 300 })
    await reader.source.transact(grant.lease, 0, write('a'))
    const [before] = await bench.engine.admin.consumers()
    await eventually(async () => {
      const [after] = await bench.engine.admin.consumers()
      assert.ok(after!.leaseUntilMs > before!.leaseUntilMs + 300, 'the session was renewed')
    })
    assert.deepEqual(reader.lost, [])
  })
})

describe('handlers that misbehave', { concurrency: 2 }, () => {
  for (const statement of ['COMMIT', 'ROLLBACK', 'COMMIT; BEGIN', 'ROLLBACK; BEGIN IMMEDIATE']) {
    test(`one that runs ${statement} is told, and the next one has a transaction as it should be`, async (context) => {
      const { reader, grant, file } = await leased(context, ['a', 'b'])
      const wrong = reader.source.transact(grant.lease, 0, async (tx) => {
        ;(tx as DatabaseSync).exec(statement)
      })
      await assert.rejects(wrong, coded('POSTHORN_INVALID_TRANSACTION'))
      assert.equal(leases(file), 1)
      assert.equal(await reader.source.transact(grant.lease, 1, write('b')), 'committed')
    })
  }

  test('one that closes the connection is told, and the next one has another', async (context) => {
    const { reader, grant } = await leased(context, ['a', 'b'])
    const wrong = reader.source.transact(grant.lease, 0, async (tx) => (tx as DatabaseSync).close())
    await assert.rejects(wrong, coded('POSTHORN_INVALID_TRANSACTION'))
    assert.equal(await reader.source.transact(grant.lease, 1, write('b')), 'committed')
  })

  test('one that was given up writes nothing more, not even in the transaction of the next one', async (context) => {
    const { reader, grant, file } = await leased(context, ['a', 'b'])
    const { promise: later, resolve: goOn } = Promise.withResolvers<void>()
    let late: Promise<void> | undefined
    const givenUp = reader.source.transact(grant.lease, 0, async (tx) => {
      insert(tx, 'early')
      late = later.then(() => insert(tx, 'late'))
      throw new PosthornError('POSTHORN_HANDLER_TIMEOUT', { subscription: SUBSCRIPTION, timeoutMs: 1 })
    })
    await assert.rejects(givenUp, coded('POSTHORN_HANDLER_TIMEOUT'))
    const outcome = await reader.source.transact(grant.lease, 1, async (tx) => {
      goOn()
      await assert.rejects(late!, coded('POSTHORN_INVALID_TRANSACTION'))
      insert(tx, 'b')
    })
    assert.equal(outcome, 'committed')
    assert.deepEqual(effects(file), ['b'])
  })

  test('one that never ends lets go of the file when its time is up', async (context) => {
    const { bench, file } = await prepared(context)
    await bench.publish(['a'])
    const reader = await bench.source({ handlerTimeoutMs: 50 })
    const [grant] = await reader.pull()
    const hanging = reader.source.transact(grant!.lease, 0, async (tx) => {
      insert(tx, 'undone')
      await new Promise(() => {})
    })
    await assert.rejects(hanging, coded('POSTHORN_HANDLER_TIMEOUT'))
    await bench.publish(['b'])
    assert.equal(await reader.source.transact(grant!.lease, 0, write('a')), 'committed')
    assert.deepEqual(effects(file), ['a'])
  })

  test('one that is slow costs no session its life, and others wait', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'], { leaseMs: 300 })
    const other = await (await Bench.open(context, file, 300)).source()
    const waiting = other.pull()
    const until = () => Number(sql(file, 'SELECT max(lease_until_ms) AS until FROM posthorn_sessions')[0]!.until)
    let publishing: Promise<unknown> | undefined
    const outcome = await reader.source.transact(grant.lease, 0, async (tx) => {
      insert(tx, 'a')
      publishing = bench.publish(['c'])
      const runOutMs = until()
      await eventually(() => assert.ok(Date.now() > runOutMs + 50, 'the sessions have run out'))
    })
    assert.equal(outcome, 'committed')
    await publishing
    assert.deepEqual(dataOf(await waiting), ['c'])
    assert.equal(await reader.source.transact(grant.lease, 1, write('b')), 'committed')
    assert.deepEqual([reader.lost, other.lost], [[], []])
  })

  for (const ending of ['commits', 'fails', 'is given up']) {
    test(`one that is slow and ${ending} leaves all sessions time to be renewed, and adds to none that has it`, async (context) => {
      const { reader, grant, file } = await leased(context, ['a', 'b', 'c', 'd', 'e'], { leaseMs: 900 })
      const slow = async (offset: number) => {
        const startedAtMs = Date.now()
        const insertSession = "INSERT OR REPLACE INTO posthorn_sessions VALUES (?, 'elsewhere', 1, 0, ?, 0)"
        sql(file, insertSession, 98, 5e12)
        sql(file, insertSession, 99, startedAtMs + 600)
        const handling = reader.source.transact(grant.lease, offset, async () => {
          await eventually(() => assert.ok(Date.now() > startedAtMs + 350))
          if (ending === 'fails') throw new Error('no')
          if (ending === 'is given up') throw new PosthornError('POSTHORN_CANCELLED', {})
        })
        await handling.catch(() => {})
        const rows = sql(file, 'SELECT lease_until_ms AS until FROM posthorn_sessions WHERE session_id >= 98')
        const [far, near] = rows.map((row) => Number(row.until))
        assert.equal(far, 5e12)
        return near! >= startedAtMs + 650 && near! <= Date.now() + 300
      }
      // Where the thread has the file locked just then, it is for the thread to be patient.
      let isProlonged = false
      for (let offset = 0; offset < 5 && !isProlonged; offset++) isProlonged = await slow(offset)
      assert.ok(isProlonged)
    })
  }

  test('the end of the connection rolls back what is under way', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a'])
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const { promise: end, resolve: finish } = Promise.withResolvers<void>()
    const open = reader.source.transact(grant.lease, 0, async (tx) => {
      insert(tx, 'undone')
      begin()
      await end
    })
    await begun
    const refused = assert.rejects(open, coded('POSTHORN_CLOSED'))
    await bench.crash()
    finish()
    await refused
    assert.deepEqual(effects(file), [])
    sql(file, 'BEGIN IMMEDIATE')
  })
})

describe('the file', { concurrency: 2 }, () => {
  test('is not made anew when somebody removed it', async (context) => {
    const { reader, grant, file } = await leased(context, ['a'])
    rmSync(file)
    await assert.rejects(reader.source.transact(grant.lease, 0, write('a')), PosthornError)
    assert.equal(existsSync(file), false)
  })

  test('grows no further than it may', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, `${file}?maxBytes=300000`)
    sql(file, 'CREATE TABLE effects (id INTEGER PRIMARY KEY, name TEXT)')
    await bench.publish(['a'])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const large = reader.source.transact(grant!.lease, 0, write('x'.repeat(400_000)))
    await assert.rejects(large, (error: { errcode?: number }) => error.errcode === 13)
    assert.equal(await reader.source.transact(grant!.lease, 0, write('a')), 'committed')
  })
})

describe('the lock of the file', { concurrency: 2 }, () => {
  test('held by somebody else is waited for, while the event loop goes on', async (context) => {
    const { reader, grant, file } = await leased(context, ['a'])
    using rival = new DatabaseSync(file)
    rival.exec('BEGIN IMMEDIATE')
    const waiting = reader.source.transact(grant.lease, 0, write('a'))
    for (let turn = 0; turn < 20; turn++) await setImmediate()
    assert.deepEqual(effects(file), [])
    rival.exec('ROLLBACK')
    assert.equal(await waiting, 'committed')
  })

  test('is given up after a while, with what SQLite says', async () => {
    const busy = Object.assign(new Error('database is locked'), { errcode: 5 })
    const clock = { ...systemClock, setTimer: (_: number, callback: () => void) => systemClock.setTimer(0, callback) }
    let tries = 0
    const attempt = () => {
      tries++
      throw busy
    }
    await assert.rejects(retryWhileBusy(clock, attempt), (error) => error === busy)
    assert.ok(tries > 500, `${tries} tries`)
  })

  test('is free now and then, however many handlers wait', async (context) => {
    const { bench, reader, grant, file } = await leased(
      context,
      Array.from({ length: 1_000 }, (_, number) => number),
    )
    let handled = 0
    const handling = grant.messages.map(async ({ offset }) => {
      await reader.source.transact(grant.lease, offset, write(String(offset)))
      handled++
    })
    await bench.publish(['in between'])
    assert.ok(handled < grant.messages.length, 'it was published after all had been handled')
    await Promise.all(handling)
    assert.equal(effects(file).length, 1_000)
  })

  test('a database in memory has no transactions to offer', async (context) => {
    const environment = { ...systemEnvironment, logger: silentLogger }
    const engine = await connectSqlite('sqlite::memory:', { environment, leaseMs: 60_000 })
    context.after(() => engine.close())
    assert.equal(engine.capabilities.transactionalHandlers, false)
    await engine.ensureTopic(topic(TOPIC))
    await engine.ensureSubscription({ ...HERE, maxCrashes: 2, ordered: false, maxParked: 10 })
    const options = { ...HERE, handlerTimeoutMs: 1_000, limits: [] }
    const source: Source = await engine.openSource({
      ...options,
      onCancelled() {},
      onLeasesLost() {},
      onSurplus() {},
      onDamage() {},
    })
    await assert.rejects(source.transact(1, 0, write('a')), coded('POSTHORN_UNSUPPORTED'))
  })
})
