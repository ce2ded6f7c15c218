import type { Abortable } from '../delivery/abortable.ts'
import type { Work } from '../delivery/runner.ts'
import type { Breaker } from './breaker.ts'

/** Work whose runs start as the breaker allows, and tell it how they ended. */
export class BreakerWork<Run extends Abortable> implements Work<Run> {
  readonly #breaker: Breaker
  readonly #work: Work<Run>
  readonly #worked: (run: Run) => boolean

  /** `worked`: whether a run whose handler returned has messages that did not fail. */
  constructor(breaker: Breaker, work: Work<Run>, worked: (run: Run) => boolean) {
    this.#breaker = breaker
    this.#work = work
    this.#worked = worked
  }

  next(nowMs: number, running: number): Run | undefined {
    this.#breaker.choose()
    if (!this.#breaker.mayStart()) return undefined
    const run = this.#work.next(nowMs, running)
    if (run !== undefined) run.runNumber = this.#breaker.start()
    return run
  }

  invoke(run: Run): unknown {
    return this.#work.invoke(run)
  }

  succeeded(run: Run, nowMs: number): void {
    this.#breaker.judge(run.runNumber, this.#worked(run), () => this.#work.succeeded(run, nowMs))
  }

  failed(run: Run, thrown: unknown, nowMs: number): void {
    this.#breaker.judge(run.runNumber, false, () => this.#work.failed(run, thrown, nowMs))
  }

  leftBehind(run: Run, thrown: unknown): Promise<void> | undefined {
    return this.#work.leftBehind?.(run, thrown)
  }

  timedOut(run: Run, nowMs: number): void {
    this.#breaker.judge(run.runNumber, false, () => this.#work.timedOut(run, nowMs))
  }

  endedLate(run: Run, durationMs: number): void {
    this.#work.endedLate(run, durationMs)
  }

  started(): void {
    this.#work.started()
  }

  stop(): void {
    this.#work.stop?.()
  }
}
