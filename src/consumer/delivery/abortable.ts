/**
 * A signal that costs nothing until it is looked at. Most handlers never read it, and an AbortController each would be
 * the most expensive part of a delivery.
 */
export class Abortable {
  /** Which of its consumer's runs it is, in the order of their starts, where a breaker goes by it. */
  runNumber = 0
  #controller: AbortController | undefined = undefined
  #aborted = false
  #reason: unknown = undefined

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#aborted) this.#controller.abort(this.#reason)
    }
    return this.#controller.signal
  }

  get aborted(): boolean {
    return this.#aborted
  }

  /** Only the first reason counts. */
  abort(reason: unknown): void {
    if (this.#aborted) return
    this.#aborted = true
    this.#reason = reason
    this.#controller?.abort(reason)
  }
}
