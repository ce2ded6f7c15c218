/** What sources do when the answers of the server get lost. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { EngineOptions, Grant, LeaseId, Source, SourceOptions } from '../../../src/engine.ts'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { PostgresEngine } from '../../../src/engines/postgres/postgres-engine.ts'
import type { PostgresSource } from '../../../src/engines/postgres/source.ts'
import { seededRandom, silentLogger, systemClock } from '../../../src/environment/index.ts'
import { PosthornError } from '../../../src/errors.ts'
import { newGroup, newMessage, TOPIC } from '../../conformance/messages.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { atEnd, eventually, newStore } from './faults-stage.ts'
import { topicConfig } from './outbox-stage.ts'

const MESSAGES = 40
const PARTITIONS = 4
const subscription = 'all'

/** The next transaction of this process: nothing of it is done, or all of it and nobody is told. */
function fail(context: TestContext, how: 'POSTHORN_STORAGE_UNAVAILABLE' | 'POSTHORN_OUTCOME_UNKNOWN'): void {
  const { transaction } = Database.prototype
  const mocked = context.mock.method(Database.prototype, 'transaction', async function (this: Database, ...values) {
    mocked.mock.restore()
    if (how === 'POSTHORN_OUTCOME_UNKNOWN') await transaction.apply(this, values as never)
    throw new PosthornError(how, { store: 'it', problem: 'the test says so' })
  } as typeof transaction)
}

async function openEngine(context: TestContext, url?: string): Promise<PostgresEngine> {
  const environment: EngineOptions['environment'] = {
    clock: systemClock,
    random: seededRandom(1),
    logger: silentLogger,
  }
  const engine = await PostgresEngine.open(parsePostgresAddress(url ?? (await newStore(context)).url), {
    environment,
    leaseMs: 60_000,
  })
  atEnd(context, () => engine.close())
  await engine.ensureTopic({ ...topicConfig, partitions: PARTITIONS })
  const start = { at: 'earliest' } as const
  await engine.ensureSubscription({ topic: TOPIC, subscription, maxCrashes: 3, ordered: true, maxParked: 100, start })
  const messages = Array.from({ length: MESSAGES }, (_, number) => newMessage(number, Date.now(), { key: `${number}` }))
  await engine.append([newGroup(messages, TOPIC)])
  return engine
}

const options: SourceOptions = {
  topic: TOPIC,
  subscription,
  handlerTimeoutMs: 30_000,
  limits: [],
  onCancelled: () => {},
  onLeasesLost: () => {},
  onSurplus: () => {},
  onDamage: () => {},
}

function pull(source: Source, messagesMax: number): Promise<readonly Grant[]> {
  return source.pull({ messagesMax, bytesMax: 1_000_000 }, AbortSignal.timeout(20_000))
}

/** From now on, the server says that it was started at another time. */
function pretendOtherServer(context: TestContext): void {
  const { transaction } = Database.prototype
  context.mock.method(Database.prototype, 'transaction', function (this: Database, work, ...values) {
    const there: typeof work = (open, client) => {
      const rows: typeof open.rows = async (...asked) => (await open.rows<never>(...asked)).map(startedLater) as never
      return work({ rows, run: (...asked) => open.run(...asked), send: (...asked) => open.send(...asked) }, client)
    }
    return transaction.call(this, there, ...values)
  } as typeof transaction)
}

function startedLater(row: object): object {
  return 'server' in row ? { ...row, server: 'later' } : row
}

/** As a failover to a server that had not heard of them yet: the last changes to the subscription are lost. */
async function loseChanges(context: TestContext, url: string, count: number): Promise<void> {
  pretendOtherServer(context)
  const database = new Database(parsePostgresAddress(url))
  atEnd(context, () => database.close())
  const text = `
    DELETE FROM @.states WHERE version > (SELECT max(version) FROM @.states) - $1`
  assert.equal(await database.run({ name: 'test_lose_changes', text: database.resolve(text) }, count), count)
}

/** Takes and settles so many messages. */
async function handle(source: Source, count: number): Promise<void> {
  for (let left = count; left > 0; ) {
    const grants = await pull(source, left)
    assert.ok(grants.length > 0, `${left} of ${count} messages did not come`)
    for (const { lease, messages } of grants) {
      left -= messages.length
      const acked = messages.flatMap(({ offset }) => [offset, offset + 1])
      assert.deepEqual(await source.settle([{ lease, acked, exceptions: [] }]), [])
    }
  }
}

describe('a source on Postgres', { skip: await whyNoPostgres() }, () => {
  test('that could not give back what it had when it was closed does so later', async (context) => {
    const engine = await openEngine(context)
    const first = await engine.openSource(options)
    assert.ok((await pull(first, 10)).length > 0)
    fail(context, 'POSTHORN_STORAGE_UNAVAILABLE')
    await assert.rejects(first.close(), { code: 'POSTHORN_STORAGE_UNAVAILABLE' })
    await assert.rejects(first.close(), { code: 'POSTHORN_STORAGE_UNAVAILABLE' })
    await handle(await engine.openSource(options), MESSAGES)
  })

  test('that was opened without anybody knowing has no share of the partitions', async (context) => {
    const engine = await openEngine(context)
    fail(context, 'POSTHORN_OUTCOME_UNKNOWN')
    await assert.rejects(engine.openSource(options), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
    await handle(await engine.openSource(options), MESSAGES)
  })

  test('that was granted messages without being told gets them, whatever it is told meanwhile', async (context) => {
    const engine = await openEngine(context)
    const source = (await engine.openSource(options)) as PostgresSource
    const held = await pull(source, 1)
    fail(context, 'POSTHORN_OUTCOME_UNKNOWN')
    await assert.rejects(pull(source, 10), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
    const looked = eventually(async () => assert.equal((await engine.admin.subscriptions())[0]?.leased, held.length))
    source.check()
    await looked
    await handle(source, MESSAGES - held.length)
  })

  test('that took partitions over without being told is told of the keys that have chains', async (context) => {
    const engine = await openEngine(context)
    const first = await engine.openSource(options)
    const [grant] = await pull(first, 1)
    const { lease, partition, messages } = grant!
    const { offset, event } = messages[0]!
    const failure = { attempt: 1, atMs: 0, name: 'Error', message: 'not now' }
    const retry = { offset, kind: 'retry', dueAtMs: Date.now() + 3_600_000, failure, key: event.subject! } as const
    await first.settle([{ lease, acked: [], exceptions: [retry] }])
    await first.close()
    const second = await engine.openSource(options)
    fail(context, 'POSTHORN_OUTCOME_UNKNOWN')
    await assert.rejects(pull(second, MESSAGES), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
    const grants = await pull(second, MESSAGES)
    const takeover = grants.find((each) => each.partition === partition)?.takeover
    assert.deepEqual(takeover, [{ key: event.subject, firstOffset: offset, lastOffset: offset }])
  })

  test('that had messages which a failover gave to nobody settles none of those that come instead', async (context) => {
    const { url } = await newStore(context)
    const source = await (await openEngine(context, url)).openSource(options)
    const [lost] = await pull(source, 1)
    const { lease, messages } = lost!
    const { offset } = messages[0]!
    await loseChanges(context, url, 1)
    const pulling = pull(source, 1)
    const fenced = await source.settle([{ lease, acked: [offset, offset + 1], exceptions: [] }])
    assert.deepEqual(fenced, [lease])
    const [grant] = await pulling
    assert.notEqual(grant!.lease, lease)
    await handle(source, MESSAGES - 1)
  })

  test('gets again what it had settled, and a failover has lost', async (context) => {
    const { url } = await newStore(context)
    const source = await (await openEngine(context, url)).openSource(options)
    const grants = await pull(source, MESSAGES)
    const settled = grants.map(({ lease, messages }, place) => {
      const end = place === 0 ? messages.at(-1)!.offset + 1 : 2
      return { lease, acked: [0, end], exceptions: [] }
    })
    await source.settle(settled)
    await loseChanges(context, url, 1)
    const again = await pull(source, MESSAGES)
    assert.deepEqual(
      again.flatMap(({ partition, messages }) => messages.map(({ offset }) => [partition, offset])).toSorted(),
      grants
        .flatMap(({ partition, messages }, place) =>
          messages.filter(({ offset }) => place === 0 || offset < 2).map(({ offset }) => [partition, offset]),
        )
        .toSorted(),
    )
  })

  test('that does not know whether a settlement was recorded is told of a lease that is lost all the same', async (context) => {
    const { url } = await newStore(context)
    const engine = await openEngine(context, url)
    const lost: LeaseId[] = []
    const onLeasesLost = (leases: readonly LeaseId[] | 'all') => void lost.push(...(leases === 'all' ? [] : leases))
    const source = (await engine.openSource({ ...options, onLeasesLost })) as PostgresSource
    const grants = await pull(source, MESSAGES)
    const { lease, messages } = grants.find((grant) => grant.messages.length > 1)!
    const settlement = { lease, acked: [messages[0]!.offset, messages[0]!.offset + 1], exceptions: [] }
    fail(context, 'POSTHORN_OUTCOME_UNKNOWN')
    await assert.rejects(source.settle([settlement]), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
    await loseChanges(context, url, 2)
    source.check()
    await eventually(() =>
      assert.deepEqual(
        lost,
        grants.map((grant) => grant.lease),
      ),
    )
  })

  test('that is closed as it begins to pull keeps no partition', async (context) => {
    const engine = await openEngine(context)
    const first = await engine.openSource(options)
    const pulling = pull(first, 1)
    await first.close()
    assert.deepEqual(await pulling, [])
    await handle(await engine.openSource(options), MESSAGES)
  })
})
