import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Priority } from '../../../src/engine.ts'
import { LaneRotation } from '../../../src/engines/memory/lanes.ts'
import { dataOf } from '../../conformance/messages.ts'
import { World } from '../../conformance/world.ts'
import { memoryHarness } from '../memory-harness.ts'

const LANES: readonly Priority[] = ['high', 'normal', 'low']

test('of 21 picks in a row among all lanes, wherever they begin, 16 are high, 4 normal and 1 low', () => {
  const rotation = new LaneRotation()
  const picks = Array.from({ length: 84 }, () => rotation.pick(LANES))
  for (let from = 0; from + 21 <= picks.length; from += 21) {
    const counts = LANES.map((lane) => picks.slice(from, from + 21).filter((pick) => pick === lane).length)
    assert.deepEqual(counts, [16, 4, 1])
  }
})

test('a lane that had no messages has saved nothing up', () => {
  const rotation = new LaneRotation()
  for (let pick = 0; pick < 100; pick++) rotation.pick(['high', 'normal'])
  const picks = Array.from({ length: 21 }, () => rotation.pick(LANES))
  assert.ok(picks.filter((pick) => pick === 'low').length <= 2)
})

test('pulls that are full by their bytes leave each lane its share, too', async () => {
  const world = await World.create(memoryHarness)
  const process = await world.process()
  await process.topic()
  const source = await process.subscribe()
  const text = 'x'.repeat(1_000)
  for (const priority of [...LANES]) {
    await process.publish(
      Array.from({ length: 100 }, () => priority + text),
      priority === 'normal' ? {} : { priority },
    )
  }
  const seen: string[] = []
  while (seen.length < 84) seen.push(...(dataOf(await source.pull({ bytesMax: 2_000 })) as string[]))
  const counts = LANES.map((lane) => seen.filter((data) => data.startsWith(lane)).length)
  assert.ok(counts[0]! >= 60 && counts[1]! >= 14 && counts[2]! >= 3, `${counts}`)
  await world.end()
})
