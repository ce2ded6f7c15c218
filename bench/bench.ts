import { Processes } from './processes.ts'
import type { Scale } from './scale.ts'
import { type Figures, summarise } from './statistics.ts'
import type { EngineName, Stores } from './stores.ts'
import type { Workspace } from './workspace.ts'

/** A fresh store, and the processes that use it. */
export interface Site {
  readonly processes: Processes
  readonly url: string
  /** A path that nothing else uses. What is there is deleted at the end. */
  readonly file: string
}

/** Measures one thing, and gives its figures. */
export interface Scenario {
  readonly name: string
  measure(bench: Bench): Promise<Figures>
}

/** What a scenario is measured with. */
export class Bench {
  readonly engine: EngineName
  readonly scale: Scale
  /** Tells people what is going on. */
  readonly progress: (what: string) => void
  readonly #stores: Stores
  readonly #workspace: Workspace
  #processes: Processes | undefined

  constructor(
    engine: EngineName,
    scale: Scale,
    stores: Stores,
    workspace: Workspace,
    progress: (what: string) => void,
  ) {
    this.engine = engine
    this.scale = scale
    this.progress = progress
    this.#stores = stores
    this.#workspace = workspace
  }

  /** Has a process compile all there is and leave it in Node's cache, so that no figure depends on who comes first. */
  async rehearse(): Promise<void> {
    await this.atSite(async ({ processes, url }) => {
      const publisher = processes.actor('publisher')
      await publisher.open({ url, warmUp: 1 })
      await publisher.close()
    })
  }

  /** Runs `measure` as often as the scale says, each time at a site of its own, and takes medians. */
  async repeat(measure: (site: Site) => Promise<Figures>): Promise<Figures> {
    return summarise(await this.times(() => this.atSite(measure)))
  }

  /** Runs `work` as often as the scale says. */
  async times(work: (run: number) => Promise<Figures>): Promise<Figures[]> {
    const results: Figures[] = []
    for (let run = 0; run < this.scale.runs; run++) {
      this.progress(`run ${run + 1} of ${this.scale.runs}`)
      results.push(await work(run))
    }
    return results
  }

  async atSite<Value>(work: (site: Site) => Promise<Value>): Promise<Value> {
    const store = this.#stores.newStore()
    const file = this.#workspace.file()
    const processes = new Processes(this.#stores.areShared)
    this.#processes = processes
    try {
      return await work({ processes, url: store.url, file })
    } finally {
      await processes.stop()
      await store.remove()
      this.#workspace.delete(file)
    }
  }

  /** Ends what runs, at once. */
  abort(): void {
    this.#processes?.kill()
  }
}
