import assert from 'node:assert/strict'
import { setImmediate } from 'node:timers/promises'
import { seededRandom, silentLogger } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import type { ConformanceHarness } from './harness.ts'
import { ProcessClock } from './process-clock.ts'
import { TestProcess } from './test-process.ts'

/** How long a session outlives its last renewal in these tests. */
export const LEASE_MS = 3_000

const STEP_MS = LEASE_MS / 3
const STEPS_MAX = 100
const TURNS_MAX = 2_000

/** One store, the processes that use it, and the time that they share. Made for one test and taken down after it. */
export class World {
  readonly clock = new VirtualClock()
  readonly harness: ConformanceHarness
  readonly store: string
  readonly #processes = new Set<TestProcess>()

  private constructor(harness: ConformanceHarness, store: string) {
    this.harness = harness
    this.store = store
  }

  static async create(harness: ConformanceHarness): Promise<World> {
    return new World(harness, await harness.newStore())
  }

  async process(): Promise<TestProcess> {
    const clock = new ProcessClock(this.clock)
    const environment = { clock, random: seededRandom(1), logger: silentLogger }
    const engine = await this.harness.open(this.store, { environment, leaseMs: LEASE_MS })
    const process = new TestProcess(this, engine, environment, clock)
    this.#processes.add(process)
    return process
  }

  /**
   * Lets time pass, in steps short enough for every living process to renew its session on the way; unless there would
   * be too many of them.
   */
  async advance(durationMs: number): Promise<void> {
    const stepMs = Math.max(STEP_MS, Math.ceil(durationMs / STEPS_MAX))
    for (let passedMs = 0; passedMs < durationMs; passedMs += stepMs) {
      await this.clock.advance(Math.min(stepMs, durationMs - passedMs))
      for (const process of this.#processes) if (process.isAlive) await process.roundTrip()
    }
  }

  /** Long enough for the leases of whoever has stopped to run out. */
  async outliveLeases(): Promise<void> {
    await this.advance(3 * LEASE_MS)
  }

  /** Waits, by turns of the event loop and never by time, until `check` no longer throws. */
  async eventually<Result>(check: () => Promise<Result> | Result): Promise<Result> {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      try {
        return await check()
      } catch (error) {
        if (!(error instanceof assert.AssertionError)) throw error
        await setImmediate()
      }
    }
    return check()
  }

  async end(): Promise<void> {
    for (const process of this.#processes) if (!process.isKilled) await process.engine.close()
    await this.harness.removeStore(this.store)
  }
}
