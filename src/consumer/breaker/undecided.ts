/**
 * Failures of which it is not known yet whether they are to be held against their messages.
 *
 * A *mark* is kept for each message whose failure was not counted: how many runs had started by then. When a run that
 * started later finds the downstream alive, the next failure of the message is its own. Marks go with their ledgers.
 */
import type { Item } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'

/** A failed message that has not been settled. */
export interface KeptFailure extends Item {
  readonly thrown: unknown
  /** Milliseconds since the epoch. */
  readonly atMs: number
  /** Runs that had started by then. */
  readonly afterRun: number
}

/** What failed with one run. */
export interface UndecidedRun {
  readonly failures: readonly KeptFailure[]
  readonly afterRun: number
  /** When it is tried again if nothing has been decided by then; by `Clock.elapsedMs`. */
  readonly dueAtMs: number
}

export class Undecided {
  /** Oldest first. */
  #runs: UndecidedRun[] = []
  readonly #marks = new Map<GrantLedger, Map<number, number>>()

  get empty(): boolean {
    return this.#runs.length === 0
  }

  /** Undefined when there is nothing undecided. */
  get nextDueAtMs(): number | undefined {
    return this.empty ? undefined : Math.min(...this.#runs.map(({ dueAtMs }) => dueAtMs))
  }

  add(run: UndecidedRun): void {
    this.#runs.push(run)
  }

  /** Takes out the runs that `test` picks, and returns those of their failures that can still be decided, oldest first. */
  take(test: (run: UndecidedRun) => boolean): readonly KeptFailure[] {
    const taken: UndecidedRun[] = []
    const left: UndecidedRun[] = []
    for (const run of this.#runs) (test(run) ? taken : left).push(run)
    this.#runs = left
    return taken.flatMap(({ failures }) => failures.filter(isPending))
  }

  /** It is to be tried again. */
  mark({ ledger, index, afterRun }: KeptFailure): void {
    const marks = this.#marks.get(ledger)
    if (marks === undefined) this.#marks.set(ledger, new Map([[index, afterRun]]))
    else marks.set(index, afterRun)
  }

  /** Messages with a mark that have not ended. */
  get marked(): number {
    let count = 0
    for (const [ledger, marks] of this.#marks) {
      for (const index of marks.keys()) if (isPending({ ledger, index })) count++
    }
    return count
  }

  /** Undefined: none of its failures went uncounted. */
  markOf({ ledger, index }: Item): number | undefined {
    return this.#marks.get(ledger)?.get(index)
  }

  /** The ledger is complete, or its lease was lost: nothing of it is undecided any more. */
  forget(ledger: GrantLedger): void {
    this.#marks.delete(ledger)
    if (this.empty) return
    const runs = this.#runs.map((run) => ({ ...run, failures: run.failures.filter((one) => one.ledger !== ledger) }))
    this.#runs = runs.filter(({ failures }) => failures.length > 0)
  }
}

/** Neither was its lease lost, nor has the engine settled it by itself. */
export function isPending({ ledger, index }: Item): boolean {
  return !ledger.lost && ledger.isOpen(index)
}
