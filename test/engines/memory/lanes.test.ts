import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Priority } from '../../../src/engine.ts'
import { dataOf } from '../../conformance/messages.ts'
import { World } from '../../conformance/world.ts'
import { memoryHarness } from '../memory-harness.ts'

const LANES: readonly Priority[] = ['high', 'normal', 'low']

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
