/** Results of steps: who may record and read them, and when they go. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Grant, SettledException, Source } from '../../../src/engine.ts'
import { connectSqlite } from '../../../src/engines/sqlite/index.ts'
import { Store } from '../../../src/engines/sqlite/store/store.ts'
import { silentLogger, systemEnvironment } from '../../../src/environment/index.ts'
import type { PosthornError } from '../../../src/errors.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { Bench, coded, eventually, HERE, newFile, type Reader, SUBSCRIPTION, sql, TOPIC } from './bench.ts'

const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
const lost = coded('POSTHORN_LEASE_LOST')

describe('steps', { concurrency: 2 }, () => {
  test('are seen under the same lease and by the next attempt, each message its own', async (context) => {
    const { reader, grant } = await leased(context, ['a', 'b'])
    const { source } = reader
    await source.recordStep(grant.lease, 0, 'charge', '{"id":7}')
    await source.recordStep(grant.lease, 0, 'mail', 'null')
    await source.recordStep(grant.lease, 1, 'charge', '8')
    assert.deepEqual(await seen(source, grant, 0), { charge: '{"id":7}', mail: 'null' })
    await except(reader, grant, { offset: 0, kind: 'retry', dueAtMs: 1, failure })
    const [again] = await reader.pull()
    assert.equal(again!.attempt, 2)
    assert.deepEqual(await seen(source, again!, 0), { charge: '{"id":7}', mail: 'null' })
    await source.recordStep(again!.lease, 0, 'charge', '9')
    assert.deepEqual(await seen(source, again!, 0), { charge: '9', mail: 'null' })
    assert.deepEqual(await seen(source, grant, 1), { charge: '8' })
  })

  test('outlive the process that recorded them', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a'], 400)
    const other = await Bench.open(context, file, 400)
    await reader.source.recordStep(grant.lease, 0, 'charge', '1')
    await bench.crash()
    const { source, ...rest } = await other.source()
    assert.equal(rest.lost.length, 0)
    const [again] = await source.pull({ messagesMax: 1, bytesMax: 1_000 }, AbortSignal.timeout(20_000))
    assert.equal(again!.crashes, 1)
    assert.deepEqual(await seen(source, again!, 0), { charge: '1' })
  })

  test('are refused without the lease, and then nothing is kept', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b', 'c'])
    const { source: other } = await (await Bench.open(context, file)).source()
    const refuse = async (source: Source, lease: number, offset: number) => {
      await assert.rejects(source.recordStep(lease, offset, 'charge', '1'), lost)
      await assert.rejects(source.steps(lease, offset), lost)
    }
    await refuse(other, grant.lease, 0)
    await refuse(reader.source, grant.lease + 1, 0)
    await refuse(reader.source, grant.lease, 3)
    await reader.source.settle([{ lease: grant.lease, acked: [1, 2], exceptions: [] }])
    await refuse(reader.source, grant.lease, 1)
    await bench.engine.admin.seek(HERE, { offset: 0 })
    await refuse(reader.source, grant.lease, 0)
    await reader.source.close()
    await refuse(reader.source, grant.lease, 2)
    assert.deepEqual(rows(file), [])
  })

  test('an error says whose lease was lost', async (context) => {
    const { reader, grant } = await leased(context, ['a'])
    await assert.rejects(reader.source.steps(grant.lease, 9), (error: PosthornError) => {
      return error.details.subscription === SUBSCRIPTION
    })
  })

  test('go with the acknowledgement that names them, and with no other', async (context) => {
    const { reader, grant, file } = await leased(context, ['a', 'b', 'c'])
    for (const offset of [0, 1, 2]) await reader.source.recordStep(grant.lease, offset, 'charge', '1')
    await reader.source.settle([{ lease: grant.lease, acked: [0, 2], exceptions: [], stepped: [0] }])
    assert.deepEqual(rows(file), [1, 2])
    await reader.source.settle([{ lease: grant.lease, acked: [2, 3], exceptions: [], stepped: [2] }])
    assert.deepEqual(rows(file), [1])
  })

  test('of a retried message go when it is acknowledged; a fenced settlement forgets nothing', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    for (const offset of [0, 1]) await reader.source.recordStep(grant.lease, offset, 'charge', '1')
    await except(reader, grant, { offset: 0, kind: 'retry', dueAtMs: 1, failure })
    const [again] = await reader.pull()
    await reader.source.settle([{ lease: again!.lease, acked: [0, 1], exceptions: [], stepped: [0] }])
    assert.deepEqual(rows(file), [1])
    await bench.engine.admin.seek(HERE, { offset: 0 })
    const fenced = await reader.source.settle([{ lease: grant.lease, acked: [1, 2], exceptions: [], stepped: [1] }])
    assert.deepEqual(fenced, [grant.lease])
    assert.deepEqual(rows(file), [1])
  })

  test('stay with a dead letter, so that a redrive skips them, until it is deleted', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    for (const offset of [0, 1]) {
      await reader.source.recordStep(grant.lease, offset, 'charge', '1')
      await except(reader, grant, { offset, kind: 'dead', reason: 'attempts', failure })
    }
    sweep(file)
    const [first, second] = await bench.engine.admin.deadLetters(HERE, { limit: 2 })
    await bench.engine.admin.redrive(HERE, { ids: [first!.id] })
    sweep(file)
    const [again] = await reader.pull()
    assert.deepEqual(await seen(reader.source, again!, 0), { charge: '1' })
    await bench.engine.admin.deleteDeadLetters(HERE, [second!.id])
    sweep(file)
    assert.deepEqual(rows(file), [0])
  })

  test('that were left behind are swept away, and those of waiting messages are not', async (context) => {
    const { reader, grant, file } = await leased(context, ['a', 'b', 'c', 'd'])
    for (const offset of [0, 1, 2, 3]) await reader.source.recordStep(grant.lease, offset, 'charge', '1')
    await except(reader, grant, { offset: 1, kind: 'retry', dueAtMs: Date.now() + 3_600_000, failure })
    await reader.source.settle([{ lease: grant.lease, acked: [0, 1, 2, 3], exceptions: [] }])
    sweep(file)
    assert.deepEqual(rows(file), [1, 3])
    await reader.source.settle([{ lease: grant.lease, acked: [3, 4], exceptions: [] }])
    await reader.source.close()
    sql(file, 'UPDATE posthorn_retries SET event = ?', '{}')
    sweep(file)
    assert.deepEqual(rows(file), [1])
  })

  test('the housekeeping sweeps by itself', async (context) => {
    const { reader, grant, file } = await leased(context, ['a'])
    await reader.source.recordStep(grant.lease, 0, 'charge', '1')
    await reader.ack([grant])
    const clock = new VirtualClock()
    const environment = { ...systemEnvironment, clock, logger: silentLogger }
    const keeper = await connectSqlite(`sqlite:${file}`, { environment, leaseMs: 60_000 })
    context.after(() => keeper.close().catch(() => {}))
    await clock.advance(60_000)
    await keeper.admin.topics()
    await eventually(() => assert.deepEqual(rows(file), []))
  })

  test('go with what a purge deletes, but for dead letters, and with the subscription', async (context) => {
    const { bench, reader, grant, file } = await leased(context, ['a', 'b'])
    for (const offset of [0, 1]) await reader.source.recordStep(grant.lease, offset, 'charge', '1')
    await except(reader, grant, { offset: 0, kind: 'dead', reason: 'attempts', failure })
    await bench.engine.admin.purge(TOPIC)
    assert.deepEqual(rows(file), [0])
    await bench.engine.admin.deleteSubscription(HERE)
    assert.deepEqual(rows(file), [])
  })
})

async function leased(context: TestContext, data: readonly unknown[], leaseMs = 60_000) {
  const file = newFile(context)
  const bench = await Bench.make(context, file, { leaseMs })
  await bench.publish(data)
  const reader = await bench.source()
  const [grant] = await reader.pull()
  assert.ok(grant)
  return { file, bench, reader, grant }
}

function except(reader: Reader, grant: Grant, exception: SettledException) {
  return reader.source.settle([{ lease: grant.lease, acked: [], exceptions: [exception] }])
}

async function seen(source: Source, grant: Grant, offset: number): Promise<Record<string, string>> {
  return Object.fromEntries(await source.steps(grant.lease, offset))
}

/** The offsets of messages that have steps. */
function rows(file: string): number[] {
  const found = sql(file, 'SELECT DISTINCT offset FROM posthorn_steps ORDER BY offset')
  return found.map(({ offset }) => Number(offset))
}

function sweep(file: string): void {
  const store = Store.open({ file })
  try {
    store.connection.write(() => store.steps.sweep())
  } finally {
    store.connection.close()
  }
}
