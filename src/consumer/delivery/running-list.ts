import type { Abortable } from './abortable.ts'

/** A handler call under way, or about to be: one place of the consumer's concurrency. */
export class Slot<Run extends Abortable> {
  /** Undefined once there is nothing more to start. */
  run: Run | undefined = undefined
  /** Both by `Clock.elapsedMs`. */
  startedAtMs = 0
  deadlineMs = 0
  /** Its place was given to another: what its handler does from now on has no effect. */
  abandoned = false
  previous: Slot<Run> | undefined = undefined
  next: Slot<Run> | undefined = undefined
}

/**
 * The slots whose handlers run, in the order in which they were started. All have the same timeout, so the first one
 * is always the next to outrun it, and one timer is enough. Linked through the slots themselves: no allocation.
 */
export class RunningList<Run extends Abortable> {
  count = 0
  first: Slot<Run> | undefined = undefined
  #last: Slot<Run> | undefined = undefined

  append(slot: Slot<Run>): void {
    slot.previous = this.#last
    slot.next = undefined
    if (this.#last === undefined) this.first = slot
    else this.#last.next = slot
    this.#last = slot
    this.count++
  }

  remove(slot: Slot<Run>): void {
    if (slot.previous === undefined) this.first = slot.next
    else slot.previous.next = slot.next
    if (slot.next === undefined) this.#last = slot.previous
    else slot.next.previous = slot.previous
    slot.previous = undefined
    slot.next = undefined
    this.count--
  }

  /** A copy, which what is done with the slots does not disturb. */
  slots(): readonly Slot<Run>[] {
    const slots: Slot<Run>[] = []
    for (let slot = this.first; slot !== undefined; slot = slot.next) slots.push(slot)
    return slots
  }
}
