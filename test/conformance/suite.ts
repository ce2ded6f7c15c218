import type { ConformanceHarness } from './harness.ts'
import type { World } from './world.ts'

/** Registers one test. `skip` is the reason why this engine need not pass it. */
export type ConformanceTest = (title: string, body: (world: World) => Promise<void>, skip?: string) => void

/** The tests of one guarantee. */
export type Guarantee = (test: ConformanceTest, harness: ConformanceHarness) => void
