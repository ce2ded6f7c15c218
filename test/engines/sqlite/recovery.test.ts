/** A writer thread that ends: what its callers are told, and how work goes on in the next one. */
import assert from 'node:assert/strict'
import { renameSync, rmSync } from 'node:fs'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { connectSqlite } from '../../../src/engines/sqlite/index.ts'
import { silentLogger, systemEnvironment } from '../../../src/environment/index.ts'
import { PosthornError } from '../../../src/errors.ts'
import { Bench, coded, dataOf, eventually, newFile, sql } from './bench.ts'

/** The threads that are started from now on, in order. */
function threads(test: TestContext): Worker[] {
  const started: Worker[] = []
  const note = (worker: Worker) => started.push(worker)
  process.on('worker', note)
  test.after(() => process.off('worker', note))
  return started
}

/** Repeats what fails for as long as no thread has the file open. */
function onceUp<T>(attempt: () => Promise<T>): Promise<T> {
  return eventually(async () => {
    try {
      return await attempt()
    } catch (error) {
      if (error instanceof PosthornError && error.code === 'POSTHORN_STORAGE_FAILED') assert.fail(error.message)
      throw error
    }
  })
}

describe('recovery', () => {
  test('when the thread dies, an append under way has an unknown outcome, and all goes on in another', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    const refused = Promise.all([
      assert.rejects(reader.pull(), coded('POSTHORN_STORAGE_FAILED')),
      assert.rejects(bench.engine.append([]), coded('POSTHORN_OUTCOME_UNKNOWN')),
    ])
    await started[0]!.terminate()
    await refused
    await assert.rejects(bench.publish(['too early']), coded('POSTHORN_STORAGE_FAILED'))
    await onceUp(() => bench.publish(['later']))
    assert.ok((await reader.take(1)).includes('later'))
  })

  test('a settlement under the leases of a dead thread is fenced, and the messages come again', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, newFile(context), { leaseMs: 400 })
    await bench.publish(['a'])
    const reader = await bench.source()
    const held = await reader.pull()
    await started[0]!.terminate()
    assert.deepEqual(await onceUp(() => reader.ack(held)), [held[0]!.lease])
    assert.deepEqual(dataOf(await reader.pull()), ['a'])
  })

  test('all leases of a dead thread are said to be lost before anybody else can have their messages', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, newFile(context))
    await bench.publish(['a'])
    const reader = await bench.source()
    await reader.pull()
    await started[0]!.terminate()
    await onceUp(() => bench.publish(['b']))
    assert.deepEqual(
      reader.lost.map(({ leases }) => leases),
      ['all'],
    )
  })

  test('threads that die again and again are followed by others', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    for (let round = 0; round < 3; round++) {
      await started.at(-1)!.terminate()
      await onceUp(() => bench.publish([round]))
      assert.deepEqual(await onceUp(() => reader.take(1)), [round])
    }
    assert.equal((await bench.engine.admin.subscriptions()).length, 1)
  })

  test('a source whose subscription went meanwhile says so', async (context) => {
    const started = threads(context)
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    const reader = await bench.source()
    const ended = started[0]!.terminate()
    sql(file, 'DELETE FROM posthorn_subscriptions')
    await ended
    await onceUp(() => bench.engine.admin.topics())
    await assert.rejects(reader.pull(), coded('POSTHORN_SUBSCRIPTION_NOT_FOUND'))
  })

  test('closing while no thread is up ends the tries', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, newFile(context))
    await bench.source()
    await started[0]!.terminate()
    await bench.engine.close()
    await assert.rejects(bench.publish(['a']), coded('POSTHORN_CLOSED'))
    assert.equal(started.length, 1)
  })

  test('the end of the thread after a clean close is no failure, however late the close is heard of', async (context) => {
    const errors: string[] = []
    const logger = { ...silentLogger, error: (message: string) => errors.push(message) }
    const environment = { ...systemEnvironment, logger }
    const engine = await connectSqlite(`sqlite:${newFile(context)}`, { environment, leaseMs: 60_000 })
    const closing = engine.close()
    await setImmediate()
    // The event loop is blocked until the thread has most probably ended: then both are heard of in one turn.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
    await closing
    assert.deepEqual(errors, [])
  })

  test('a file that was removed or replaced is given up for good', async (context) => {
    for (const away of [(file: string) => rmSync(file), (file: string) => renameSync(`${file}-wal`, `${file}.away`)]) {
      const file = newFile(context)
      const bench = await Bench.make(context, file)
      const reader = await bench.source()
      away(file)
      await assert.rejects(bench.publish(['lost']), coded('POSTHORN_STORAGE_REPLACED'))
      await assert.rejects(reader.pull(), coded('POSTHORN_STORAGE_REPLACED'))
      await assert.rejects(bench.subscription(), coded('POSTHORN_STORAGE_REPLACED'))
      await bench.engine.close()
    }
  })

  test('a database in memory is gone with its thread', async (context) => {
    const started = threads(context)
    const bench = await Bench.make(context, ':memory:')
    await started[0]!.terminate()
    await eventually(() => assert.rejects(bench.publish(['a']), coded('POSTHORN_STORAGE_FAILED')))
    await bench.engine.close()
    assert.equal(started.length, 1)
  })
})
