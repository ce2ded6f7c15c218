import { test } from 'node:test'
import type { ConformanceHarness } from './harness.ts'
import { World } from './world.ts'

/** Registers one test. `skip` is the reason why this engine need not pass it. */
export type ConformanceTest = (title: string, body: (world: World) => Promise<void>, skip?: string) => void

/** The tests of one guarantee. */
export type Guarantee = (test: ConformanceTest, harness: ConformanceHarness) => void

const TEST_TIMEOUT_MS = 60_000

/** Registers tests that each have a store of their own. */
export function testOn(harness: ConformanceHarness): ConformanceTest {
  return (title, body, skip) => {
    test(title, { skip: skip ?? false, timeout: TEST_TIMEOUT_MS }, async () => {
      const world = await World.create(harness)
      try {
        await body(world)
      } finally {
        await world.end()
      }
    })
  }
}
