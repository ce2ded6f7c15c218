/**
 * An engine for a consumer runtime whose process can die. Alive, it is the engine behind it, and what goes to a source
 * and comes back from it takes its time: calls that are under way at the same time may pass each other. Once it was
 * killed, no promise that it has given out settles any more, nothing reaches the engine, and the engine's reports reach
 * nobody: to the runtime time has stopped, and to the store the process is silent.
 */

import type { Engine, Grant, Source, SourceOptions } from '../../src/engine.ts'
import { linkSignals } from '../../src/environment/index.ts'

export class MortalEngine implements Engine {
  readonly #engine: Engine
  readonly #travel: () => Promise<void>
  readonly #death = new AbortController()

  /** `travel` lasts as long as a call, or its answer, is on its way. */
  constructor(engine: Engine, travel: () => Promise<void>) {
    this.#engine = engine
    this.#travel = travel
  }

  get name() {
    return this.#engine.name
  }

  get capabilities() {
    return this.#engine.capabilities
  }

  get admin() {
    return this.#engine.admin
  }

  get isDead(): boolean {
    return this.#death.signal.aborted
  }

  kill(): void {
    this.#death.abort()
  }

  ensureTopic(...given: Parameters<Engine['ensureTopic']>) {
    return this.#alive(() => this.#engine.ensureTopic(...given))
  }

  ensureSubscription(...given: Parameters<Engine['ensureSubscription']>) {
    return this.#alive(() => this.#engine.ensureSubscription(...given))
  }

  append(...given: Parameters<Engine['append']>) {
    return this.#alive(() => this.#engine.append(...given))
  }

  appendIn(...given: Parameters<Engine['appendIn']>) {
    return this.#alive(() => this.#engine.appendIn(...given))
  }

  openSource(options: SourceOptions): Promise<Source> {
    const whileAlive = <Values extends unknown[]>(report: (...values: Values) => void) => {
      return (...values: Values) => {
        if (!this.isDead) report(...values)
      }
    }
    return this.#alive(async () => {
      const source = await this.#engine.openSource({
        ...options,
        onSurplus: whileAlive((partitions) => options.onSurplus(partitions)),
        onCancelled: whileAlive((lease, offset) => options.onCancelled(lease, offset)),
        onLeasesLost: whileAlive((leases, reason) => options.onLeasesLost(leases, reason)),
        onDamage: whileAlive((error) => options.onDamage(error)),
      })
      return this.#mortal(source)
    })
  }

  close() {
    return this.#alive(() => this.#engine.close())
  }

  #mortal(source: Source): Source {
    return {
      get leasedUntilMs() {
        return source.leasedUntilMs
      },
      pull: (limits, signal) => this.#remote(() => this.#pull(source, limits, signal)),
      settle: (...given) => this.#remote(() => source.settle(...given)),
      admit: (...given) => this.#alive(() => source.admit(...given)),
      reportBreaker: (...given) => this.#alive(() => source.reportBreaker(...given)),
      steps: (...given) => this.#alive(() => source.steps(...given)),
      recordStep: (...given) => this.#alive(() => source.recordStep(...given)),
      transact: (...given) => this.#alive(() => source.transact(...given)),
      close: () => this.#alive(() => source.close()),
    }
  }

  // A pull that waits on would take messages that its process is not there to handle.
  #pull(source: Source, limits: Parameters<Source['pull']>[0], signal: AbortSignal): Promise<readonly Grant[]> {
    const { signal: ending, unlink } = linkSignals(signal, this.#death.signal)
    return source.pull(limits, ending).finally(unlink)
  }

  #remote<Result>(call: () => Promise<Result>): Promise<Result> {
    return this.#alive(async () => {
      await this.#travel()
      const answer = await this.#alive(call)
      await this.#travel()
      return answer
    })
  }

  #alive<Result>(call: () => Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.isDead) return
      call().then(
        (result) => this.isDead || resolve(result),
        (error: unknown) => this.isDead || reject(error),
      )
    })
  }
}
