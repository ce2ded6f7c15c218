/** Runs what is asked for on an object one after the other, in that order, the first of them at once. */
export class OneByOne {
  readonly #last = new WeakMap<object, Promise<unknown>>()

  run<Value>(target: object, work: () => Promise<Value>): Promise<Value> {
    const before = this.#last.get(target)
    const result = before ? before.then(work) : work()
    const settled: Promise<unknown> = result.then(
      () => {},
      () => {},
    )
    this.#last.set(target, settled)
    void settled.then(() => this.#last.get(target) === settled && this.#last.delete(target))
    return result
  }
}
