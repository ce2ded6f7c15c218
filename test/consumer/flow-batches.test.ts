/** Batches in a subscription with limits: of messages first, then of permissions. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readLimits } from '../../src/api/flow-options.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { START_MS } from './harness.ts'
import { inFlight, sharedBy, startLimited } from './limited-rig.ts'

function batchRecorder(clock: VirtualClock) {
  const batches: { readonly atMs: number; readonly events: number }[] = []
  const handleBatch = (events: readonly unknown[]) => void batches.push({ atMs: clock.now(), events: events.length })
  return { batches, handleBatch }
}

async function startBatches(rateLimit: { limit: number; per: number }, batch: { size: number; waitMs: number }) {
  const clock = new VirtualClock(START_MS)
  const limits = readLimits(rateLimit, undefined, batch)
  const { batches, handleBatch } = batchRecorder(clock)
  const rig = await startLimited(limits, { handleBatch }, { batch }, sharedBy(clock, limits[0]))
  return { ...rig, clock, batches }
}

test('permissions gather for as long as they may, and the limit is used up and not passed', async () => {
  const { source, consumer, clock, batches } = await startBatches({ limit: 200, per: 1_000 }, { size: 8, waitMs: 0 })
  source.offer(grantOf(offsets(0, 1_000)))
  await clock.advance(4_000)
  const messages = batches.reduce((sum, { events }) => sum + events, 0)
  assert.ok(messages >= 4 * 200 * 0.85, `${messages} in 4 s`)
  assert.ok(messages / batches.length > 6, `${batches.length} batches`)
  for (const { atMs: fromMs } of batches) {
    const within = batches.filter(({ atMs }) => atMs >= fromMs && atMs < fromMs + 1_000)
    assert.ok(within.reduce((sum, { events }) => sum + events, 0) <= 200)
  }
  await consumer.close()
})

test('where the wait of batches is short in comparison, they become full at slow rates too', async () => {
  const { source, consumer, clock, batches } = await startBatches(
    { limit: 600, per: 60_000 },
    { size: 10, waitMs: 2_000 },
  )
  source.offer(grantOf(offsets(0, 300)))
  await clock.advance(20_000)
  const messages = batches.reduce((sum, { events }) => sum + events, 0)
  assert.ok(messages >= 160, `${messages} in 20 s`)
  assert.ok(messages / batches.length >= 9, `${batches.length} batches`)
  await consumer.close()
})

test('nothing is asked about while messages gather', async () => {
  const { source, consumer, clock, batches } = await startBatches({ limit: 100, per: 1_000 }, { size: 10, waitMs: 500 })
  source.offer(grantOf([0, 1]))
  await settleDown()
  await clock.advance(499)
  assert.deepEqual(source.admissions, [])
  await clock.advance(60)
  assert.deepEqual(
    batches.map(({ events }) => events),
    [2],
  )
  await consumer.close()
})

test('a batch that fits into what is left of the places starts at once', async () => {
  const clock = new VirtualClock(START_MS)
  const { batches, handleBatch } = batchRecorder(clock)
  const batch = { size: 10, waitMs: 1_000 }
  const { source, consumer } = await startLimited(
    [inFlight(50)],
    { handleBatch },
    { batch },
    sharedBy(clock, inFlight(50)),
  )
  source.offer(grantOf(offsets(0, 12)))
  await settleDown()
  assert.deepEqual(batches, [{ atMs: START_MS, events: 10 }])
  await clock.advance(1_000)
  await settleDown()
  assert.deepEqual(
    batches.map(({ events }) => events),
    [10, 2],
  )
  await consumer.close()
})
