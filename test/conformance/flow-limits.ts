/** Limits that hold over all sources of a subscription: how many messages start in a time, and how many run at once. */
import assert from 'node:assert/strict'
import type { FinishedMessages, InFlightLimit, Limit, RateLimit } from '../../src/engine.ts'
import { seededRandom } from '../../src/environment/index.ts'
import { SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

const ONE_BY_ONE: RateLimit = { kind: 'rate', name: 'rate', limit: 10, perMs: 1_000, burst: 1, graceMs: 20 }
const IN_BURSTS: RateLimit = { kind: 'rate', name: 'rate', limit: 10, perMs: 1_000, burst: 5, graceMs: 20 }
const THREE_AT_ONCE: InFlightLimit = { kind: 'inFlight', name: 'in-flight', limit: 3 }

// Fractions of a millisecond that an engine may lose by rounding.
const ROUNDING_MS = 0.001

export const flowLimits: Guarantee = (test) => {
  for (const [manner, limit] of [
    ['one by one', ONE_BY_ONE],
    ['in bursts', IN_BURSTS],
  ] as const) {
    test(`no stretch of time holds more starts than the limit, ${manner}, over two processes`, async (world) => {
      const sources = [await limited(world, [limit]), await another(world, [limit])]
      const startsMs = await askAtRandom(world, sources, 8_000)
      for (const [place, startMs] of startsMs.entries()) {
        const last = startsMs[place + limit.limit]
        if (last === undefined) continue
        // The first may come as late as the grace allows, and the last on time.
        assert.ok(last - startMs >= limit.perMs + limit.graceMs - ROUNDING_MS, `${last - startMs} ms for 11 starts`)
      }
      const intervalMs = (limit.perMs + limit.graceMs) / (limit.limit - limit.burst + 1)
      assert.ok(startsMs.length > (0.8 * 8_000) / intervalMs, `${startsMs.length} starts are far below the limit`)
    })
  }

  test('a burst may start at once, and no more than it', async (world) => {
    const source = await limited(world, [IN_BURSTS])
    const [[starts]] = [await source.admit([{ buckets: [''], starts: 50 }])]
    assert.deepEqual(starts?.slice(0, 5), [0, 0, 0, 0, 0])
    assert.ok(starts.slice(5).every((startMs) => startMs > 0))
  })

  test('starts are admitted ahead, rising, and told when to ask again', async (world) => {
    const limit = { ...ONE_BY_ONE, limit: 100 }
    const source = await limited(world, [limit])
    const [admission] = await source.source.admit([{ buckets: [''], starts: 1_000 }], [])
    const { startsInMs, againInMs } = admission!
    assert.ok(startsInMs.length >= 1 && startsInMs.length < 100, `${startsInMs.length} starts admitted`)
    assert.deepEqual(
      startsInMs,
      startsInMs.toSorted((one, other) => one - other),
    )
    assert.ok(againInMs > 0 && againInMs <= limit.perMs, `again in ${againInMs} ms`)
    await world.advance(Math.ceil(againInMs))
    assert.ok((await source.admit([{ buckets: [''], starts: 1 }]))[0]!.length === 1)
  })

  test('no more is admitted than was asked for', async (world) => {
    const source = await limited(world, [IN_BURSTS, THREE_AT_ONCE])
    assert.deepEqual(
      await source.admit([
        { buckets: ['a', 'a'], starts: 0 },
        { buckets: ['a', 'a'], starts: 1 },
      ]),
      [[], [0]],
    )
  })

  test('buckets do not share their limit', async (world) => {
    const source = await limited(world, [ONE_BY_ONE])
    const demands = [
      { buckets: ['a'], starts: 1 },
      { buckets: ['a'], starts: 1 },
      { buckets: ['b'], starts: 1 },
    ]
    const [first, second, other] = await source.admit(demands)
    assert.deepEqual([first, other], [[0], [0]])
    assert.ok(second!.every((startMs) => startMs > 0))
  })

  test('subscriptions do not share their limits', async (world) => {
    const process = await world.process()
    await process.topic()
    const sources = ['mail', 'fraud'].map(async (subscription) => {
      await process.subscription({ subscription })
      return process.source(subscription, TOPIC, [ONE_BY_ONE, THREE_AT_ONCE])
    })
    for (const source of await Promise.all(sources)) {
      assert.deepEqual(await source.admit([{ buckets: ['', ''], starts: 1 }]), [[0]])
    }
  })

  test('no more are in flight than the limit, over two processes', async (world) => {
    const [one, other] = [await limited(world, [THREE_AT_ONCE]), await another(world, [THREE_AT_ONCE])]
    assert.equal(await admitted(one, 2), 2)
    assert.equal(await admitted(other, 5), 1)
    assert.equal(await admitted(other, 1), 0)
    assert.equal(await admitted(one, 1), 0)
    const [full] = await other.source.admit([{ buckets: [''], starts: 1 }], [])
    assert.ok(full!.againInMs > 0)
  })

  test('what has finished makes room at once, for the same call, too', async (world) => {
    const [one, other] = [await limited(world, [THREE_AT_ONCE]), await another(world, [THREE_AT_ONCE])]
    assert.equal(await admitted(one, 3), 3)
    assert.equal(await admitted(one, 3, [{ buckets: [''], messages: 2 }]), 2)
    await one.source.admit([], [{ buckets: [''], messages: 1 }])
    assert.equal(await admitted(other, 3), 1)
  })

  test('each bucket has its own places', async (world) => {
    const source = await limited(world, [THREE_AT_ONCE])
    const admissions = await source.admit([
      { buckets: ['a'], starts: 5 },
      { buckets: ['b'], starts: 2 },
    ])
    assert.deepEqual(
      admissions.map((starts) => starts.length),
      [3, 2],
    )
    await source.source.admit([], [{ buckets: ['b'], messages: 2 }])
    assert.equal((await source.admit([{ buckets: ['a'], starts: 1 }]))[0]?.length, 0)
  })

  test('a source that closes frees its places', async (world) => {
    const [one, other] = [await limited(world, [THREE_AT_ONCE]), await another(world, [THREE_AT_ONCE])]
    assert.equal(await admitted(one, 3), 3)
    await one.close()
    assert.equal(await admitted(other, 5), 3)
  })

  test('the places of a dead process are free once its session has run out, and not before', async (world) => {
    const doomed = await world.process()
    await doomed.topic()
    await doomed.subscription()
    const one = await doomed.source(SUBSCRIPTION, TOPIC, [THREE_AT_ONCE])
    const other = await another(world, [THREE_AT_ONCE])
    assert.equal(await admitted(one, 2), 2)
    await doomed.crash()
    assert.equal(await admitted(other, 5), 1)
    await world.outliveLeases()
    await world.eventually(async () => assert.equal(await admitted(other, 2), 2))
    assert.equal(await admitted(other, 1), 0)
  })

  test('a process that lost its session frees no places of others', async (world) => {
    const late = await world.process()
    await late.topic()
    await late.subscription()
    const one = await late.source(SUBSCRIPTION, TOPIC, [THREE_AT_ONCE])
    const other = await another(world, [THREE_AT_ONCE])
    assert.equal(await admitted(one, 3), 3)
    late.stall()
    await world.outliveLeases()
    await world.eventually(async () => assert.equal(await admitted(other, 3), 3))
    late.goOn()
    await one.source.admit([], [{ buckets: [''], messages: 3 }])
    assert.equal(await admitted(other, 1), 0)
  })

  test('under several limits as many may start as the tightest allows, and no more is taken from the others', async (world) => {
    const source = await limited(world, [IN_BURSTS, THREE_AT_ONCE])
    const demand = { buckets: ['', 'a'], starts: 5 }
    assert.deepEqual(await source.admit([demand]), [[0, 0, 0]])
    await source.source.admit([], [{ buckets: ['', 'a'], messages: 3 }])
    const [rest] = await source.admit([demand])
    assert.deepEqual(rest?.slice(0, 2), [0, 0])
    assert.ok(rest.slice(2).every((startMs) => startMs > 0))
  })

  test('two rates: the slower one decides', async (world) => {
    const slow: RateLimit = { ...IN_BURSTS, name: 'slow', limit: 2, burst: 2 }
    const source = await limited(world, [IN_BURSTS, slow])
    const [starts] = await source.admit([{ buckets: ['', ''], starts: 5 }])
    assert.deepEqual(starts, [0, 0])
    const [other] = await source.admit([{ buckets: ['', 'another'], starts: 5 }])
    assert.deepEqual(other, [0, 0])
  })
}

async function limited(world: World, limits: readonly Limit[]): Promise<TestSource> {
  const process = await world.process()
  await process.topic()
  await process.subscription()
  return process.source(SUBSCRIPTION, TOPIC, limits)
}

async function another(world: World, limits: readonly Limit[]): Promise<TestSource> {
  const process: TestProcess = await world.process()
  return process.source(SUBSCRIPTION, TOPIC, limits)
}

async function admitted(
  source: TestSource,
  starts: number,
  finished: readonly FinishedMessages[] = [],
): Promise<number> {
  const [admission] = await source.source.admit([{ buckets: [''], starts }], finished)
  return admission!.startsInMs.length
}

/** Lets sources ask for more than they may have, at random times. Returns when the messages start, rising. */
async function askAtRandom(world: World, sources: readonly TestSource[], durationMs: number): Promise<number[]> {
  const random = seededRandom(7)
  const startsMs: number[] = []
  const beganAtMs = world.clock.now()
  while (world.clock.now() < beganAtMs + durationMs) {
    const source = sources[Math.floor(random.number() * sources.length)]!
    const nowMs = world.clock.now()
    const [starts] = await source.admit([{ buckets: [''], starts: 1 + Math.floor(random.number() * 4) }])
    startsMs.push(...starts!.map((startInMs) => nowMs + startInMs))
    await world.clock.advance(1 + Math.floor(random.number() * 60))
  }
  return startsMs.toSorted((one, other) => one - other)
}
