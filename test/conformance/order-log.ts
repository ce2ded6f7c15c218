/**
 * Watches the handlers of all processes for what order promises. For each key, messages carry the numbers 0, 1, 2, ...
 * in the order of their publishing:
 * - first starts come in that order, and none is left out;
 * - a message is begun only after the one before it has ended for good, by success or by its last failure, so that once
 *   it was begun none before it is begun again, unless an operator redrove it;
 * - at no time do two handlers run for one key, but for those that were told to stop.
 */
import assert from 'node:assert/strict'

export interface Run {
  readonly key: string
  readonly number: number
  readonly attempt: number
  readonly where: string
  /** False once its process is gone, or it was told to stop. */
  readonly isAlive: () => boolean
  state: 'running' | 'succeeded' | 'failed' | 'abandoned'
}

export class OrderLog {
  readonly #attempts: number
  readonly #published = new Map<string, number>()
  readonly #runs = new Map<string, Run[]>()
  readonly #violations: string[] = []

  constructor(attempts: number) {
    this.#attempts = attempts
  }

  /** The number of the next message of a key. */
  next(key: string): number {
    const number = this.#published.get(key) ?? 0
    this.#published.set(key, number + 1)
    return number
  }

  /** A handler is called. */
  start(given: Omit<Run, 'state'>): Run {
    const runs = this.runsOf(given.key)
    this.#check(given, runs)
    const run: Run = { ...given, state: 'running' }
    runs.push(run)
    return run
  }

  runsOf(key: string): Run[] {
    const runs = this.#runs.get(key) ?? []
    this.#runs.set(key, runs)
    return runs
  }

  /** The numbers of a key in the order of their first starts. */
  started(key: string): readonly number[] {
    return [...new Set(this.runsOf(key).map(({ number }) => number))]
  }

  assertKept(): void {
    assert.deepEqual(this.#violations, [])
  }

  /** Every message of these keys, or of all, has ended for good. */
  assertDone(keys: readonly string[] = [...this.#published.keys()]): void {
    for (const key of keys) {
      const open = Array.from({ length: this.#published.get(key) ?? 0 }, (_, number) => number).filter(
        (number) => !this.#hasEnded(this.runsOf(key), number),
      )
      assert.deepEqual(open, [], `messages of ${key} have not ended`)
    }
  }

  #check(started: Omit<Run, 'state'>, runs: readonly Run[]): void {
    const { key, number, where } = started
    const report = (problem: string) => {
      const history = runs.map((run) => `${run.number}#${run.attempt}@${run.where}:${run.state}`)
      this.#violations.push(`${key}/${number} in ${where} ${problem}; before: ${history.slice(-8).join(' ')}`)
    }
    const last = runs.reduce((highest, run) => Math.max(highest, run.number), -1)
    if (number < last) report(`was started after ${last}`)
    if (number > last + 1) report(`was started before ${last + 1}`)
    if (number === last + 1 && number > 0 && !this.#hasEnded(runs, last)) report(`was started before ${last} had ended`)
    const other = runs.find((run) => run.state === 'running' && run.isAlive())
    if (other) report(`was started while ${other.number} ran in ${other.where}`)
  }

  #hasEnded(runs: readonly Run[], number: number): boolean {
    return runs.some(
      (run) =>
        run.number === number &&
        (run.state === 'succeeded' || (run.state === 'failed' && run.attempt >= this.#attempts)),
    )
  }
}
