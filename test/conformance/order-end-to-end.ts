/**
 * Guarantee 4 with the consumer runtime over the engine: whatever handlers do, and whichever processes come, close and
 * die, the messages of a key are handled in order, and a failing key holds back itself and no other.
 */
import assert from 'node:assert/strict'
import type { SubscribeOptions } from '../../src/api/subscribe-options.ts'
import { type Random, seededRandom } from '../../src/environment/index.ts'
import { numbersTo, SUBSCRIPTION, TOPIC } from './messages.ts'
import { Fleet } from './order-fleet.ts'
import type { Decide, Fate } from './order-worker.ts'
import type { ConformanceTest, Guarantee } from './suite.ts'
import type { World } from './world.ts'

const HERE = { topic: TOPIC, subscription: SUBSCRIPTION }
const SEEDS = [1, 2]
const STEPS = 40
const KEYS = numbersTo(12).map((number) => `key-${number}`)
const ATTEMPTS = 3
const TIMEOUT_MS = 400
// With every other seed, calls to the engine and their answers take up to this long.
const TRAVEL_MS_MAX = 40
const SLOW_MESSAGE_MS = 20_000
// Of 100 kB each: more than a consumer keeps in memory.
const LARGE_MESSAGES = 300
const RETURN_AT_ONCE: Fate = { does: 'return', afterMs: 0 }
const NOTHING_LEFT = { backlog: 0, leased: 0, retrying: 0, returned: 0, parked: 0 }
const OPTIONS: SubscribeOptions = {
  ordered: true,
  concurrency: 8,
  timeout: TIMEOUT_MS,
  retry: { attempts: ATTEMPTS, backoff: { type: 'fixed', delay: 60, jitter: 'none' } },
  from: 'earliest',
  maxCrashes: 1_000,
}

const SETTINGS = { options: OPTIONS, attempts: ATTEMPTS, travelMs: () => 0 }

export const orderEndToEnd: Guarantee = (test) => {
  for (const seed of SEEDS) {
    test(`seed ${seed}: random failures, joining, closing and dying consumers`, (world) => runAtRandom(world, seed))
  }
  blockedKeys(test)

  test('a slow key does not hold back the others of its partition', (world) => {
    return Fleet.run(world, { ...SETTINGS, decide: slowKey(() => TIMEOUT_MS / 2) }, async (fleet) => {
      await fleet.publish('slow', 12)
      for (const key of KEYS) await fleet.publish(key, 3)
      await fleet.join()
      await fleet.eventually(() => fleet.log.assertDone(KEYS))
      assert.ok(fleet.log.started('slow').length < 12, 'the slow key was done before the others')
      await fleet.eventually(() => fleet.log.assertDone())
      fleet.log.assertKept()
    })
  })

  test('what outgrows the memory of a consumer behind a slow message comes in order, after the others', (world) => {
    const options = { ...OPTIONS, timeout: '1h' } as const
    const decide = slowKey((number) => (number === 0 ? SLOW_MESSAGE_MS : 0))
    return Fleet.run(world, { ...SETTINGS, options, decide }, async (fleet) => {
      for (let batch = 0; batch < LARGE_MESSAGES / 5; batch++) await fleet.publish('slow', 5, 'x'.repeat(100_000))
      for (const key of KEYS) await fleet.publish(key, 3)
      await fleet.join()
      await fleet.eventually(() => fleet.log.assertDone(KEYS))
      assert.deepEqual(fleet.log.started('slow'), [0])
      await fleet.eventually(() => fleet.log.assertDone())
      fleet.log.assertKept()
      assert.deepEqual(fleet.log.started('slow'), numbersTo(LARGE_MESSAGES))
    })
  })
}

function blockedKeys(test: ConformanceTest): void {
  test('blocked, a key waits through deaths and joins until it is redriven; the others go on', (world) => {
    return withPoison(world, async (fleet, mend) => {
      await fleet.killOne()
      await fleet.join()
      await fleet.publish('poisoned', 3)
      await fleet.publish('key-0', 3)
      await fleet.eventually(() => fleet.log.assertDone(KEYS))
      for (let round = 0; round < 60; round++) await fleet.round()
      assert.deepEqual(fleet.log.started('poisoned'), [0, 1])
      mend()
      assert.equal(await fleet.operator.admin.redrive(HERE, {}), 1)
      await fleet.eventually(() => fleet.log.assertDone())
      fleet.log.assertKept()
      assert.deepEqual(
        fleet.log.runsOf('poisoned').map(({ number }) => number),
        [0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7],
      )
      const nothing = { ...NOTHING_LEFT, blockedKeys: 0, deadLetters: 0 }
      await fleet.eventually(async () => assert.partialDeepStrictEqual(await fleet.operator.state(), nothing))
    })
  })

  test('blocked, a key goes on without its dead letter once that is deleted', (world) => {
    return withPoison(world, async (fleet) => {
      assert.equal(await fleet.operator.admin.deleteDeadLetters(HERE), 1)
      await fleet.eventually(() => assert.deepEqual(fleet.log.started('poisoned'), numbersTo(5)))
      fleet.log.assertKept()
      assert.equal(fleet.log.runsOf('poisoned').filter(({ number }) => number === 1).length, ATTEMPTS)
    })
  })
}

/** The second message of a key has failed for good and blocks it; everything else is done. */
async function withPoison(world: World, body: (fleet: Fleet, mend: () => void) => Promise<void>): Promise<void> {
  let isMended = false
  const options: SubscribeOptions = { ...OPTIONS, ordered: { onExhausted: 'block' } }
  const decide: Decide = (key, number) => {
    return key === 'poisoned' && number === 1 && !isMended ? { does: 'throw', afterMs: 0 } : RETURN_AT_ONCE
  }
  await Fleet.run(world, { ...SETTINGS, options, decide }, async (fleet) => {
    await fleet.join()
    await fleet.join()
    await fleet.publish('poisoned', 5)
    for (const key of KEYS) await fleet.publish(key, 3)
    await fleet.eventually(async () => {
      fleet.log.assertDone(KEYS)
      assert.partialDeepStrictEqual(await fleet.operator.state(), { blockedKeys: 1, deadLetters: 1, parked: 3 })
    })
    assert.deepEqual(fleet.log.started('poisoned'), [0, 1])
    await body(fleet, () => {
      isMended = true
    })
  })
}

function runAtRandom(world: World, seed: number): Promise<void> {
  const random = seededRandom(seed)
  const decide: Decide = (key, number, attempt) => {
    return randomFate(seededRandom(((seed * 100 + KEYS.indexOf(key)) * 1_000 + number) * 10 + attempt))
  }
  const travel = seededRandom(seed + 1_000)
  const travelMs = () => Math.floor(travel.number() * ((seed % 2) * TRAVEL_MS_MAX))
  return Fleet.run(world, { ...SETTINGS, decide, travelMs }, async (fleet) => {
    await fleet.join()
    for (let step = 0; step < STEPS; step++) {
      await randomStep(fleet, random)
      fleet.log.assertKept()
    }
    await fleet.join()
    await fleet.eventually(() => fleet.log.assertDone())
    fleet.log.assertKept()
    await fleet.eventually(async () => assert.partialDeepStrictEqual(await fleet.operator.state(), NOTHING_LEFT))
    assert.deepEqual(await fleet.operator.admin.checkIntegrity(), [])
  })
}

async function randomStep(fleet: Fleet, random: Random): Promise<void> {
  const drawn = random.number()
  if (drawn < 0.5) {
    for (let message = 0; message < 8; message++) await fleet.publish(pick(KEYS, random), 1 + pick([0, 1, 2], random))
  } else if (drawn < 0.6) await fleet.join()
  else if (drawn < 0.67) fleet.closeOne()
  else if (drawn < 0.74) await fleet.killOne()
  await fleet.round(pick([10, 70, 400], random))
}

function slowKey(takesMs: (number: number) => number): Decide {
  return (key, number) => (key === 'slow' ? { does: 'return', afterMs: takesMs(number) } : RETURN_AT_ONCE)
}

function randomFate(random: Random): Fate {
  const drawn = random.number()
  if (drawn < 0.55) return RETURN_AT_ONCE
  if (drawn < 0.72) return { does: 'return', afterMs: 1 + Math.floor(random.number() * 90) }
  if (drawn < 0.86) return { does: 'throw', afterMs: 0 }
  if (drawn < 0.92) return { does: 'throw', afterMs: 1 + Math.floor(random.number() * 90) }
  return { does: 'outrun', byMs: drawn < 0.96 ? 300 : undefined }
}

function pick<Item>(items: readonly Item[], random: Random): Item {
  return items[Math.floor(random.number() * items.length)]!
}
