import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Admission, BreakerReport, Limit } from '../../../src/engine.ts'
import type { Database } from '../../../src/engines/postgres/database/database.ts'
import { migrate } from '../../../src/engines/postgres/database/migrate.ts'
import { Admissions } from '../../../src/engines/postgres/limits/admissions.ts'
import { Breakers } from '../../../src/engines/postgres/limits/breakers.ts'
import { PosthornError } from '../../../src/errors.ts'
import { VirtualClock } from '../../../src/testing/virtual-clock.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { newStore, openDatabase, query } from './space.ts'

const SUBSCRIPTION = 7
const RATE: Limit = { kind: 'rate', name: 'pace', limit: 10, perMs: 1_000, burst: 4, graceMs: 0 }
const PLACES: Limit = { kind: 'inFlight', name: 'places', limit: 3 }

/** A store with two sessions, and a process for each. */
class Stage {
  readonly clock = new VirtualClock()
  readonly database: Database
  readonly one: Admissions
  readonly other: Admissions

  private constructor(database: Database, another: Database) {
    this.database = database
    this.one = new Admissions(database, this.clock)
    this.other = new Admissions(another, this.clock)
  }

  static async open(context: TestContext): Promise<Stage> {
    const url = await newStore(context)
    const stage = new Stage(openDatabase(context, url), openDatabase(context, url))
    await migrate(stage.database)
    for (const session of ['one', 'other', 'late']) await stage.addSession(session)
    return stage
  }

  async addSession(session: string): Promise<void> {
    await query(this.database, `INSERT INTO @.sessions VALUES ($1, 0, 0, 0, 3000, 'host', 1)`, session)
  }

  async loseSession(session: string): Promise<void> {
    await query(this.database, 'DELETE FROM @.sessions WHERE session_id = $1', session)
  }

  async countRows(): Promise<number> {
    return (await query(this.database, 'SELECT FROM @.counters')).length
  }
}

async function ask(
  process: Admissions,
  source: string,
  limits: readonly Limit[],
  buckets: readonly string[],
  starts: number,
  finished = 0,
): Promise<Admission> {
  const ended = finished > 0 ? [{ buckets, messages: finished }] : []
  const [admission] = await process.admit(SUBSCRIPTION, source, limits, [{ buckets, starts }], ended)
  return admission!
}

/** All of it is done, and nobody is told. */
async function loseAnswer(context: TestContext, database: Database, call: () => Promise<unknown>): Promise<void> {
  const { transaction } = database
  const mocked = context.mock.method(database, 'transaction', async (...values: unknown[]) => {
    mocked.mock.restore()
    await transaction.apply(database, values as never)
    throw new PosthornError('POSTHORN_OUTCOME_UNKNOWN', { store: 'it', problem: 'the test says so' })
  })
  await assert.rejects(call(), { code: 'POSTHORN_OUTCOME_UNKNOWN' })
}

describe('the limits of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('hold over processes: of one bucket, nobody gets what another has taken', async (context) => {
    const stage = await Stage.open(context)
    const limits = [RATE]
    const first = await ask(stage.one, 'one/1', limits, ['a'], 3)
    const second = await ask(stage.other, 'other/1', limits, ['a'], 9)
    assert.deepEqual(first.startsInMs, [0, 0, 0])
    assert.equal(second.startsInMs[0], 0)
    assert.equal(second.startsInMs.filter((startMs) => startMs === 0).length, 1)
    const elsewhere = await ask(stage.other, 'other/1', limits, ['b'], 9)
    assert.equal(elsewhere.startsInMs.filter((startMs) => startMs === 0).length, 4)
  })

  test('never let more start than they say, whoever asks at once', async (context) => {
    const stage = await Stage.open(context)
    const starts: number[] = []
    for (let round = 0; round < 40; round++) {
      const admissions = await Promise.all([
        ask(stage.one, 'one/1', [RATE], ['a'], 3),
        ask(stage.other, 'other/1', [RATE], ['a'], 3),
        ask(stage.other, 'other/2', [RATE], ['a'], 3),
      ])
      const nowMs = stage.clock.now()
      for (const { startsInMs } of admissions) starts.push(...startsInMs.map((startMs) => nowMs + startMs))
      await stage.clock.advance(70)
    }
    starts.sort((one, other) => one - other)
    assert.ok(starts.length >= 20, `${starts.length} starts`)
    for (let place = 0; place + 10 < starts.length; place++) {
      assert.ok(starts[place + 10]! - starts[place]! >= 1_000)
    }
  })

  test('count places over processes, until they are given back or their source closes', async (context) => {
    const stage = await Stage.open(context)
    assert.equal((await ask(stage.one, 'one/1', [PLACES], ['a'], 2)).startsInMs.length, 2)
    const { startsInMs, againInMs } = await ask(stage.other, 'other/1', [PLACES], ['a'], 2)
    assert.equal(startsInMs.length, 1)
    assert.equal(againInMs, 25)
    assert.equal((await ask(stage.one, 'one/1', [PLACES], ['a'], 5, 1)).startsInMs.length, 1)
    await stage.one.release(SUBSCRIPTION, 'one/1')
    assert.equal((await ask(stage.other, 'other/1', [PLACES], ['a'], 5)).startsInMs.length, 2)
  })

  test('are never exceeded by those who ask for places at once', async (context) => {
    const stage = await Stage.open(context)
    const asked = ['one/1', 'one/2', 'one/3', 'one/4', 'one/5'].map((source) =>
      ask(stage.one, source, [PLACES], ['a'], 1),
    )
    const starts = (await Promise.all(asked)).flatMap(({ startsInMs }) => startsInMs)
    assert.equal(starts.length, 3)
  })

  test('count no places of a session that is lost, and admit nothing under it', async (context) => {
    const stage = await Stage.open(context)
    await ask(stage.one, 'one/1', [PLACES], ['a'], 3)
    await stage.loseSession('one')
    assert.equal((await ask(stage.one, 'one/1', [PLACES], ['a'], 1)).startsInMs.length, 0)
    assert.equal((await ask(stage.other, 'other/1', [PLACES], ['a'], 5)).startsInMs.length, 3)
  })

  test('let what ends late free no places of the session after', async (context) => {
    const stage = await Stage.open(context)
    await ask(stage.one, 'one/1', [PLACES], ['a'], 2)
    await stage.loseSession('one')
    assert.equal((await ask(stage.one, 'late/1', [PLACES], ['a'], 3)).startsInMs.length, 3)
    assert.equal((await ask(stage.one, 'late/1', [PLACES], ['a'], 3, 2)).startsInMs.length, 0)
    assert.equal((await ask(stage.one, 'late/1', [PLACES], ['a'], 3, 1)).startsInMs.length, 1)
  })

  test('count what a source has, though the answers to it got lost', async (context) => {
    const stage = await Stage.open(context)
    const limits = [RATE, PLACES]
    await ask(stage.one, 'one/1', limits, ['a', 'x'], 1)
    await loseAnswer(context, stage.database, () => ask(stage.one, 'one/1', limits, ['a', 'x'], 2))
    await stage.clock.advance(1_000)
    assert.equal((await ask(stage.one, 'one/1', limits, ['a', 'x'], 1)).startsInMs.length, 1)
    await loseAnswer(context, stage.database, () => ask(stage.one, 'one/1', limits, ['a', 'y'], 3, 0))
    await loseAnswer(context, stage.database, () => ask(stage.one, 'one/1', limits, ['a', 'x'], 0, 1))
    await stage.clock.advance(1_000)
    assert.equal((await ask(stage.one, 'one/1', limits, ['a', 'x'], 0, 1)).startsInMs.length, 0)
    assert.equal((await ask(stage.other, 'other/1', limits, ['b', 'x'], 4)).startsInMs.length, 2)
    assert.equal((await ask(stage.other, 'other/1', limits, ['c', 'y'], 4)).startsInMs.length, 3)
  })

  test('count no places that a failover has brought back', async (context) => {
    const stage = await Stage.open(context)
    await ask(stage.one, 'one/1', [PLACES], ['a'], 3)
    const before = await query(stage.database, 'TABLE @.counters')
    await ask(stage.one, 'one/1', [PLACES], ['a'], 0, 3)
    const values = [JSON.stringify(before)]
    await query(
      stage.database,
      'INSERT INTO @.counters SELECT * FROM json_populate_recordset(NULL::@.counters, $1)',
      ...values,
    )
    stage.one.serverChanged()
    assert.equal((await ask(stage.one, 'one/1', [PLACES], ['a'], 3)).startsInMs.length, 3)
  })

  test('take from several buckets what all of them have', async (context) => {
    const stage = await Stage.open(context)
    const limits = [RATE, PLACES]
    assert.equal((await ask(stage.one, 'one/1', limits, ['a', 'x'], 9)).startsInMs.length, 3)
    assert.equal((await ask(stage.one, 'one/1', limits, ['a', 'y'], 9)).startsInMs.length, 1)
  })

  test('leave no rows behind: a few while they are used, none when places are free and buckets full', async (context) => {
    const stage = await Stage.open(context)
    const tenant = `"tenant" \u0000 ${'x'.repeat(5_000)}`
    for (let round = 0; round < 100; round++) {
      await ask(stage.one, 'one/1', [RATE, PLACES], ['a', tenant], 1, round === 0 ? 0 : 1)
      await stage.clock.advance(200)
    }
    assert.ok((await stage.countRows()) <= 2 * 33)
    await stage.one.release(SUBSCRIPTION, 'one/1')
    await stage.clock.advance(60_000)
    await stage.one.forgetIdle(stage.clock.now())
    assert.equal(await stage.countRows(), 0)
    await ask(stage.one, 'one/1', [RATE], ['b'], 1)
    await stage.clock.advance(60_000)
    await stage.one.forgetIdle(stage.clock.now())
    assert.equal(await stage.countRows(), 0)
  })
})

describe('the breakers of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('are shown until they are closed', async (context) => {
    const { database } = await Stage.open(context)
    const breakers = new Breakers(database)
    const report: BreakerReport = { state: 'open', openedAtMs: 1, probeAtMs: 2, reason: 'it is down' }
    await breakers.report(SUBSCRIPTION, 'one/1', { ...report, reason: 'before' })
    await breakers.report(SUBSCRIPTION, 'one/1', report)
    await breakers.report(8, 'other/1', report)
    assert.deepEqual(
      await breakers.list(database, [SUBSCRIPTION, 8, 9]),
      new Map([
        [SUBSCRIPTION, [{ ...report, consumer: 'one' }]],
        [8, [{ ...report, consumer: 'other' }]],
      ]),
    )
    await breakers.report(SUBSCRIPTION, 'one/1', undefined)
    assert.deepEqual([...(await breakers.list(database, [SUBSCRIPTION, 8])).keys()], [8])
  })
})
