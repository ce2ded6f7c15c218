import { type Clock, type Logger, OnceAMinute, type Timer } from '../../environment/index.ts'

/** Something that has to be done now and then, whoever does it. */
export interface Chore {
  readonly name: string
  readonly everyMs: number
  run(): Promise<void>
}

interface Planned {
  readonly chore: Chore
  nextAtMs: number
}

/**
 * Does chores one after the other, each as often as it says, whatever the wall clock is set to. One that fails is done
 * again when its time comes; that it failed is said once a minute. `catchUp` does all that are due now.
 */
export class Housekeeping {
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #planned: readonly Planned[]
  #timer: Timer | undefined
  #round: Promise<void> | undefined
  #stopped = false
  readonly #warning: OnceAMinute

  constructor(clock: Clock, logger: Logger, chores: readonly Chore[]) {
    this.#clock = clock
    this.#logger = logger
    this.#warning = new OnceAMinute(clock)
    this.#planned = chores.map((chore) => ({ chore, nextAtMs: clock.elapsedMs() + chore.everyMs }))
  }

  start(): void {
    if (this.#stopped || this.#planned.length === 0) return
    const nextAtMs = Math.min(...this.#planned.map((planned) => planned.nextAtMs))
    this.#timer = this.#clock.setTimer(Math.max(1, nextAtMs - this.#clock.elapsedMs()), () => {
      void this.catchUp().then(() => this.start())
    })
  }

  /** Does what is due now. */
  catchUp(): Promise<void> {
    this.#round ??= this.#run(this.#clock.elapsedMs()).finally(() => {
      this.#round = undefined
    })
    return this.#round
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#round
  }

  async #run(nowMs: number): Promise<void> {
    for (const planned of this.#planned) {
      if (this.#stopped || planned.nextAtMs > nowMs) continue
      planned.nextAtMs = nowMs + planned.chore.everyMs
      await planned.chore.run().catch((error: Error) => this.#warn(planned.chore.name, error))
    }
  }

  #warn(name: string, error: Error): void {
    if (this.#stopped || !this.#warning.isDue()) return
    const { code } = error as { code?: string }
    this.#logger.warn(`${name} failed and is tried again: ${error.message}`, { code })
  }
}
