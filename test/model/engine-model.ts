/**
 * Drives an engine with random steps by up to three processes, beside a model that knows what each subscription owes.
 * Each step checks what it sees; at the end everything that is owed is taken, and the books must balance: nothing was
 * lost, nothing came twice that was settled, and what was fenced changed nothing.
 */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { ConformanceHarness } from '../conformance/harness.ts'
import { TOPIC } from '../conformance/messages.ts'
import { boundedShrinking } from './bounded-shrinking.ts'
import * as commands from './commands.ts'
import { Model } from './model.ts'
import { type LaneOutcome, settleLane, skip } from './ordered-commands.ts'
import { PARTITIONS, Real, SLOTS } from './real.ts'
import type { SubscriptionModel } from './subscription-model.ts'

export interface ModelRunOptions {
  readonly runs: number
  readonly stepsMax: number
  /** To repeat a failure that fast-check printed. */
  readonly seed?: number
}

const SETTLED_WITHIN_MS = 30_000
// What is pulled may have to be set aside first.
const IDLE_PULLS = 5

const slot = fc.nat(SLOTS - 1)
const subscription = fc.nat(2)
const ORDERED = 2
const choice = fc.nat(1_000)
const rarely = <Value>(...values: Value[]) => {
  return fc.oneof(
    { arbitrary: fc.constant(undefined), weight: 4 },
    { arbitrary: fc.constantFrom(...values), weight: 1 },
  )
}
const item = fc.record({
  // Mostly of one key, so that chains grow.
  key: fc.option(fc.constantFrom('a', 'a', 'a', 'b', 'c'), { nil: undefined }),
  id: rarely('id-1', 'id-2', 'id-3'),
  delayMs: fc.constantFrom(0, 0, 0, 500, 3_000),
  priority: rarely<'high' | 'low'>('high', 'low'),
})
const outcome = fc.constantFrom<commands.Outcome>('ack', 'ack', 'retry', 'dead', 'release', 'leave')
const laneOutcome = fc.constantFrom<LaneOutcome>(
  'ack',
  'ack',
  'retry',
  'retry',
  'dead',
  'block',
  'park',
  'overflow',
  'overflow',
  'release',
)
const target = fc.oneof(
  fc.constantFrom('earliest' as const, 'latest' as const),
  fc.record({ partition: fc.nat(3 * PARTITIONS - 1), offset: fc.nat(12) }),
)

/** Makes a step out of a maker and what it is called with, which is also how a counterexample shows it. */
function steps<Values extends unknown[]>(
  maker: (...values: Values) => ReturnType<typeof commands.advance>,
  ...values: { [Place in keyof Values]: fc.Arbitrary<Values[Place]> }
) {
  return fc
    .tuple<Values>(...values)
    .map((given) =>
      commands.step(`${maker.name}(${given.map((value) => JSON.stringify(value)).join(', ')})`, maker(...given)),
    )
}

const publish = steps(commands.publish, slot, fc.array(item, { minLength: 1, maxLength: 6 }))
const pull = steps(commands.pull, slot, subscription, fc.constantFrom(1, 3, 20))
const settle = steps(
  commands.settle,
  choice,
  fc.array(outcome, { minLength: 1, maxLength: 4 }),
  fc.constantFrom(0, 500, 4_000),
)

const pullOrdered = steps(commands.pull, slot, fc.constant(ORDERED), fc.constantFrom(1, 3, 20))
const settleOrdered = steps(settleLane, choice, laneOutcome, fc.constantFrom(0, 500, 4_000))

// What moves messages stands several times, so that runs are about deliveries more than about disasters.
const anyStep = [
  publish,
  publish,
  pull,
  pull,
  pull,
  settle,
  settle,
  settle,
  pullOrdered,
  pullOrdered,
  pullOrdered,
  settleOrdered,
  settleOrdered,
  settleOrdered,
  settleOrdered,
  settleOrdered,
  steps(commands.settleGhost, choice),
  steps(commands.advance, fc.constantFrom(100, 1_000, 5_000)),
  steps(commands.close, slot),
  steps(commands.crash, slot),
  steps(commands.stall, slot, slot),
  steps(commands.seek, slot, subscription, target),
  steps(commands.pause, slot, subscription, fc.boolean()),
  steps(commands.redrive, slot, subscription),
  steps(skip, slot),
  steps(commands.cancel, slot, choice),
]

export async function checkAgainstModel(harness: ConformanceHarness, options: ModelRunOptions): Promise<void> {
  const { runs: numRuns, stepsMax: maxCommands, seed } = options
  const stories = fc.commands(anyStep, { maxCommands, size: 'max' })
  const run = boundedShrinking(async (chosen: Iterable<fc.AsyncCommand<Model, Real>>) => {
    const real = await Real.create(harness)
    const model = new Model()
    try {
      await fc.asyncModelRun(() => ({ model, real }), chosen)
      await settleEverything(model, real)
    } finally {
      await real.world.end()
    }
  })
  await fc.assert(fc.asyncProperty(stories, run), { numRuns, ...(seed !== undefined && { seed }) })
}

async function settleEverything(model: Model, real: Real): Promise<void> {
  await real.process(0)
  for (const { name } of model.subscriptions) await commands.pause(0, indexOf(model, name), false)(model, real)
  await settleHeld(model, real)
  // Whoever does not pull may own partitions.
  for (let slot = 1; slot < SLOTS; slot++) await commands.close(slot)(model, real)
  await real.world.advance(SETTLED_WITHIN_MS)
  while (model.ordered.hasBlocked()) await skip(0)(model, real)
  for (const owner of model.subscriptions) {
    await drain(indexOf(model, owner.name), model, real)
    await checkBooks(owner, real)
  }
}

async function settleHeld(model: Model, real: Real): Promise<void> {
  while (model.ordered.heldLanes().length > 0) await settleLane(0, 'ack', 0)(model, real)
  while (model.heldLeases().length > 0) await commands.settle(0, ['ack'], 0)(model, real)
}

async function drain(subscription: number, model: Model, real: Real): Promise<void> {
  const owner = model.subscriptions[subscription]!
  let idlePulls = 0
  do {
    const unfinished = owner.unfinished().length
    await commands.pull(0, subscription, 1_000)(model, real)
    await settleHeld(model, real)
    idlePulls = owner.unfinished().length < unfinished ? 0 : idlePulls + 1
  } while (idlePulls < IDLE_PULLS && owner.unfinished().length > 0)
}

async function checkBooks(owner: SubscriptionModel, real: Real): Promise<void> {
  assert.deepEqual(owner.unfinished(), [], 'messages were lost')
  const process = await real.process(0)
  const place = { topic: TOPIC, subscription: owner.name }
  const letters = await process.admin.deadLetters(place, { limit: 10_000 })
  const dead = letters.map(({ event }) => event?.data as number)
  assert.deepEqual(sorted(dead), sorted(owner.letters))
  const nothing = {
    backlog: 0,
    leased: 0,
    retrying: 0,
    returned: 0,
    parked: 0,
    blockedKeys: 0,
    deadLetters: dead.length,
  }
  assert.partialDeepStrictEqual(await process.state(owner.name), nothing)
  assert.deepEqual(await process.admin.checkIntegrity(), [])
}

function indexOf(model: Model, name: string): number {
  return model.subscriptions.findIndex((subscription) => subscription.name === name)
}

function sorted(numbers: readonly number[]): number[] {
  return numbers.toSorted((one, other) => one - other)
}
