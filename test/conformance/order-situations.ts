/** Situations in which several tests of guarantee 4 begin, or go on. */
import type { TestProcess } from './test-process.ts'
import type { TestSource } from './test-source.ts'
import type { World } from './world.ts'

export const KEY = 'user-1'
export const OTHER_KEY = 'user-2'

// Values of `maxCrashes`: after one crash, messages come back one at a time; or in ranges, as they were.
export const SUSPECTS_AT_ONCE = 2
export const SECOND_CHANCE = 3

/** An ordered subscription of one partition, with messages of `KEY`. */
export async function withKey(
  world: World,
  data: readonly unknown[],
  maxCrashes: number = SUSPECTS_AT_ONCE,
): Promise<{ process: TestProcess; source: TestSource }> {
  const process = await world.process()
  await process.topic()
  const source = await process.subscribe({ ordered: true, maxCrashes })
  await process.publish(data, { key: KEY })
  return { process, source }
}

/** The process dies, its session runs out, and the one that is returned comes after it. */
export async function afterCrash(doomed: TestProcess): Promise<TestProcess> {
  const { world } = doomed
  await doomed.crash()
  await world.outliveLeases()
  return world.process()
}
