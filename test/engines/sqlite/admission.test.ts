/** Limits over all processes: the arithmetic by a property, the rows by two engines on one file. */
import assert from 'node:assert/strict'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import fc from 'fast-check'
import type { Admission, Limit, RateLimit, Source } from '../../../src/engine.ts'
import { AdmittedPlaces } from '../../../src/engines/admitted-places.ts'
import { SCHEMA } from '../../../src/engines/sqlite/sql/schema.ts'
import { StatementCache } from '../../../src/engines/sqlite/store/file/connection.ts'
import { Admissions, type Applicant } from '../../../src/engines/sqlite/store/limits/admission.ts'
import { Bench, eventually, HERE, newFile, sql } from './bench.ts'

const START_MS = 1_700_000_000_000
const HORIZON_MS = 100

describe('rates', () => {
  test('no window holds more than the limit, whoever asks when, and however late each start is within its grace', () => {
    fc.assert(
      fc.property(settings, fc.array(ask, { minLength: 1, maxLength: 60 }), (setting, asks) => {
        const { admissions, applicant } = stage([rate(setting)])
        let nowMs = START_MS
        const startedMs: number[] = []
        for (const { pauseShare, starts, source, lateShares } of asks) {
          nowMs += Math.floor(pauseShare * setting.perMs)
          const [admission] = admissions.admit(applicant(source), source, [{ buckets: ['b'], starts }], nowMs)
          for (const [index, inMs] of admission!.startsInMs.entries()) {
            startedMs.push(nowMs + inMs + lateShares[index % lateShares.length]! * setting.graceMs)
          }
        }
        startedMs.sort((one, other) => one - other)
        for (let index = setting.limit; index < startedMs.length; index++) {
          const windowMs = startedMs[index]! - startedMs[index - setting.limit]!
          assert.ok(windowMs >= setting.perMs, `${setting.limit + 1} starts within ${windowMs} ms`)
        }
      }),
      { numRuns: 500 },
    )
  })

  test('who asks again when he is told to gets all that the limit allows', () => {
    const setting = { limit: 10, perMs: 1_000, burst: 3, graceMs: 20 }
    const { admissions, applicant } = stage([rate(setting)])
    const intervalMs = 1_020 / 8
    let nowMs = START_MS
    let started = 0
    let asked = 0
    while (nowMs < START_MS + 100 * intervalMs) {
      const [admission] = admissions.admit(applicant(1), 1, [{ buckets: ['b'], starts: 50 }], nowMs)
      started += admission!.startsInMs.length
      asked++
      assert.ok(admission!.againInMs >= 1)
      nowMs += admission!.againInMs
    }
    assert.ok(started >= 101 && started <= 104, `${started} starts in 100 intervals, and 2 more at once`)
    assert.ok(asked <= 110, `asked ${asked} times`)
  })

  test('starts rise, lie within the horizon, and take the way of the question into account', () => {
    const { admissions, applicant } = stage([rate({ limit: 100, perMs: 1_000, burst: 2, graceMs: 0 })])
    const [early] = admissions.admit(applicant(1), 1, [{ buckets: ['b'], starts: 50 }], START_MS)
    assert.deepEqual(early!.startsInMs.slice(0, 2), [0, 0])
    assert.ok(early!.startsInMs.at(-1)! <= HORIZON_MS)
    assert.deepEqual(
      early!.startsInMs.toSorted((one, other) => one - other),
      early!.startsInMs,
    )
    const [late] = admissions.admit(applicant(1), 1, [{ buckets: ['c'], starts: 1 }], START_MS, 40)
    assert.deepEqual(late!.startsInMs, [40])
  })

  test('buckets, limits and subscriptions do not share', () => {
    const { admissions, applicant } = stage([rate({ limit: 1, perMs: 1_000, burst: 1, graceMs: 0 })])
    const once = (buckets: string[], who: Applicant) =>
      admissions.admit(who, 1, [{ buckets, starts: 5 }], START_MS)[0]!.startsInMs.length
    const who = applicant(1)
    assert.equal(once(['a'], who), 1)
    assert.equal(once(['a'], who), 0)
    assert.equal(once(['b'], who), 1)
    assert.equal(once(['a'], { ...who, subscriptionId: 8 }), 1)
    assert.equal(once(['a'], { ...who, limits: [{ ...(who.limits[0] as RateLimit), name: 'other' }] }), 1)
  })

  test('two demands of one call on one bucket share it', () => {
    const { admissions, applicant } = stage([rate({ limit: 1, perMs: 1_000, burst: 1, graceMs: 0 })])
    const demand = { buckets: ['a'], starts: 1 }
    const counts = admissions.admit(applicant(1), 1, [demand, demand], START_MS).map((one) => one.startsInMs.length)
    assert.deepEqual(counts, [1, 0])
  })

  test('a clock that goes back, and a limit that is raised, keep nobody waiting for the old time', () => {
    const slow = rate({ limit: 1, perMs: 86_400_000, burst: 1, graceMs: 0 })
    const fast = rate({ limit: 10, perMs: 1_000, burst: 1, graceMs: 0 })
    const { admissions, applicant } = stage([slow])
    const who = applicant(1)
    const demands = [{ buckets: ['a'], starts: 1 }]
    assert.equal(admissions.admit(who, 1, demands, START_MS)[0]!.startsInMs.length, 1)
    const [raised] = admissions.admit({ ...who, limits: [fast] }, 1, demands, START_MS)
    assert.ok(raised!.againInMs <= 2 * HORIZON_MS, `${raised!.againInMs}`)
    const [back] = admissions.admit({ ...who, limits: [fast] }, 1, demands, START_MS - 3_600_000)
    assert.ok(back!.againInMs <= 2 * HORIZON_MS, `${back!.againInMs}`)
  })

  test('the rows of buckets that are full again are deleted, and no others', () => {
    const { admissions, applicant, database } = stage([rate({ limit: 1, perMs: 1_000, burst: 1, graceMs: 0 })])
    admissions.admit(applicant(1), 1, [{ buckets: ['old'], starts: 1 }], START_MS)
    admissions.admit(applicant(1), 1, [{ buckets: ['new'], starts: 1 }], START_MS + 3_000)
    assert.equal(admissions.forgetIdle(START_MS + 3_000), false)
    assert.deepEqual(
      database
        .prepare('SELECT bucket FROM posthorn_rates')
        .all()
        .map(({ bucket }) => bucket),
      ['new'],
    )
  })
})

describe('several limits of one subscription', () => {
  const limits: Limit[] = [
    rate({ limit: 1, perMs: 1_000, burst: 1, graceMs: 0 }, 'each'),
    rate({ limit: 4, perMs: 1_000, burst: 4, graceMs: 0 }, 'all'),
    { kind: 'inFlight', name: 'running', limit: 3 },
  ]

  test('a demand gets the least that they allow, and takes no more from any', () => {
    const { admissions, applicant, database } = stage(limits)
    const ask = (each: string) =>
      admissions.admit(applicant(1), 1, [{ buckets: [each, '', ''], starts: 5 }], START_MS)[0]!.startsInMs.length
    assert.deepEqual([ask('a'), ask('a'), ask('b'), ask('c')], [1, 0, 1, 1])
    assert.equal(ask('d'), 0, 'three are in flight')
    admissions.finish(applicant(1), 1, [{ buckets: ['a', '', ''], messages: 1 }])
    assert.deepEqual([ask('d'), ask('e')], [1, 0])
    const held = database.prepare('SELECT sum(held) AS held FROM posthorn_in_flight').get()
    assert.equal(held?.held, 3)
    assert.equal(database.prepare("SELECT * FROM posthorn_rates WHERE bucket = 'e'").all().length, 0)
  })

  test('the longest wait of all of them is told', () => {
    const { admissions, applicant } = stage(limits)
    const demands = [{ buckets: ['a', '', ''], starts: 2 }]
    const [admission] = admissions.admit(applicant(1), 1, demands, START_MS)
    assert.ok(admission!.againInMs > 900 && admission!.againInMs <= 1_000, `${admission!.againInMs}`)
  })
})

describe('over two engines on one file', { concurrency: 2 }, () => {
  const oneAHour: Limit = { kind: 'rate', name: 'rate', limit: 1, perMs: 3_600_000, burst: 1, graceMs: 0 }
  const two: Limit = { kind: 'inFlight', name: 'running', limit: 2 }

  test('a rate is shared', async (context) => {
    const { here, there } = await sources(context, [oneAHour])
    assert.equal(await started(here, ['a'], 3), 1)
    assert.equal(await started(there, ['a'], 3), 0)
    assert.equal(await started(there, ['b'], 3), 1)
  })

  test('places are shared, and free when they are reported, with the same call too', async (context) => {
    const { here, there } = await sources(context, [two])
    assert.equal(await started(here, ['a'], 1), 1)
    assert.equal(await started(there, ['a'], 5), 1)
    assert.equal(await started(here, ['a'], 5), 0)
    const [admission] = await there.admit([{ buckets: ['a'], starts: 1 }], [{ buckets: ['a'], messages: 1 }])
    assert.equal(admission!.startsInMs.length, 1)
    assert.deepEqual(await here.admit([], [{ buckets: ['a'], messages: 1 }]), [])
    assert.equal(await started(there, ['a'], 5), 1)
  })

  test('what somebody reports frees none of the places of others', async (context) => {
    const { here, there } = await sources(context, [two])
    assert.equal(await started(here, ['a'], 5), 2)
    await there.admit([], [{ buckets: ['a'], messages: 2 }])
    assert.equal(await started(there, ['a'], 5), 0)
  })

  test('the places of a source that closes are free', async (context) => {
    const { here, there } = await sources(context, [two])
    assert.equal(await started(here, ['a'], 5), 2)
    await here.close()
    assert.equal(await started(there, ['a'], 5), 2)
    assert.equal(await started(here, ['a'], 5), 0, 'a closed source gets nothing')
  })

  test('the places of a process that died are free once its session is lost', async (context) => {
    const { here, there, benchHere } = await sources(context, [two], 400)
    assert.equal(await started(here, ['a'], 5), 2)
    await benchHere.crash()
    assert.equal(await started(there, ['a'], 5), 0)
    await eventually(async () => assert.equal(await started(there, ['a'], 1), 1))
  })

  test('a deleted subscription leaves no rows', async (context) => {
    const { here, benchThere, file } = await sources(context, [oneAHour, two])
    await started(here, ['a', 'a'], 1)
    assert.equal(sql(file, 'SELECT * FROM posthorn_rates').length, 1)
    assert.equal(sql(file, 'SELECT * FROM posthorn_in_flight').length, 1)
    await benchThere.engine.admin.deleteSubscription(HERE)
    assert.equal(sql(file, 'SELECT * FROM posthorn_rates').length, 0)
    assert.equal(sql(file, 'SELECT * FROM posthorn_in_flight').length, 0)
  })

  test('the state of a breaker is shown until it closes, or its source does', async (context) => {
    const { here, there, benchThere } = await sources(context, [])
    const report = { state: 'open', openedAtMs: 5, probeAtMs: 9, reason: 'ECONNREFUSED' } as const
    await here.reportBreaker(report)
    await there.reportBreaker({ state: 'half-open', openedAtMs: 7, reason: 'timeout' })
    const consumers = (await benchThere.engine.admin.consumers()).map(({ id }) => id)
    assert.deepEqual((await benchThere.state()).breakers, [
      { ...report, consumer: consumers[0] },
      { state: 'half-open', openedAtMs: 7, reason: 'timeout', consumer: consumers[1] },
    ])
    await there.reportBreaker(undefined)
    assert.equal((await benchThere.state()).breakers.length, 1)
    await here.close()
    assert.deepEqual((await benchThere.state()).breakers, [])
  })
})

describe('places of a session that was lost', () => {
  const demand = [{ buckets: ['a'], starts: 9 }]
  const admitted = (count: number): Admission[] => [{ startsInMs: new Array(count).fill(0), againInMs: 1 }]
  const ended = (messages: number) => [{ buckets: ['a'], messages }]

  test('are not reported against the session after it', () => {
    const places = new AdmittedPlaces()
    places.update([], demand, admitted(3), 1)
    places.update([], demand, admitted(2), 2)
    assert.deepEqual(places.heldOf(ended(2)), [])
    assert.deepEqual(places.heldOf([...ended(2), ...ended(2)]), ended(1))
    places.update(ended(2), [], [], 2)
    assert.deepEqual(places.heldOf(ended(2)), ended(1))
  })

  test('nothing is forgotten when a report fails, and all is once all have ended', () => {
    const places = new AdmittedPlaces()
    places.update([], demand, admitted(1), 1)
    places.update([], demand, admitted(1), 2)
    assert.deepEqual(places.heldOf(ended(1)), [])
    assert.deepEqual(places.heldOf(ended(1)), [])
    places.update(ended(2), demand, admitted(1), 2)
    assert.deepEqual(places.heldOf(ended(1)), ended(1))
  })
})

const settings = fc
  .record({
    limit: fc.integer({ min: 1, max: 12 }),
    burstShare: fc.double({ min: 0, max: 1, noNaN: true }),
    perMs: fc.integer({ min: 1, max: 2_000 }),
    graceMs: fc.integer({ min: 0, max: 100 }),
  })
  .map(({ burstShare, ...rest }) => ({ ...rest, burst: 1 + Math.floor(burstShare * (rest.limit - 1)) }))

const share = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }))

const ask = fc.record({
  pauseShare: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 0.6, noNaN: true })),
  starts: fc.integer({ min: 1, max: 15 }),
  source: fc.integer({ min: 1, max: 3 }),
  lateShares: fc.array(share, { minLength: 1, maxLength: 5 }),
})

function rate(setting: Omit<RateLimit, 'kind' | 'name'>, name = 'rate'): RateLimit {
  return { kind: 'rate', name, ...setting }
}

/** The rows by themselves, in memory, for callers that say what time it is. */
function stage(limits: readonly Limit[]) {
  const database = new DatabaseSync(':memory:')
  database.exec(SCHEMA)
  const admissions = new Admissions(new StatementCache((text) => database.prepare(text)))
  const applicant = (number: number): Applicant => ({ subscriptionId: 7, number, limits })
  return { admissions, applicant, database }
}

async function sources(context: TestContext, limits: readonly Limit[], leaseMs = 60_000) {
  const file = newFile(context)
  const benchHere = await Bench.make(context, file, { leaseMs })
  const benchThere = await Bench.open(context, file, leaseMs)
  const { source: here } = await benchHere.source({ limits })
  const { source: there } = await benchThere.source({ limits })
  return { file, benchHere, benchThere, here, there }
}

async function started(source: Source, buckets: string[], starts: number): Promise<number> {
  const [admission] = await source.admit([{ buckets, starts }], [])
  return admission!.startsInMs.length
}
