/**
 * Which messages of one key were given up to the store, as far as grants may have crossed that: what the engine granted
 * before it knew must not be begun before them.
 *
 * States of a message: on its way, from its end here until that is recorded; then recorded, but a pull under way may
 * still bring what was granted before; then forgotten, with the first message of a later pull. It is forgotten at once
 * when it is granted again, because the engine grants what follows it only afterwards, and when its lease is lost, because
 * then nothing of it is ever recorded.
 *
 * Messages are recorded in the order in which they were given up, so that those to be forgotten are the first ones.
 */
import type { LaneItem } from './lane.ts'

export class GivenUp {
  /** By offset: the message itself while it is on its way, then how many pulls had been begun when it was recorded. */
  readonly #messages = new Map<number, LaneItem | number>()

  /** A message is on its way, and `pulls` have been begun so far. */
  add(item: LaneItem, pulls: number): void {
    this.#forgetBefore(pulls)
    this.#messages.delete(item.offset)
    this.#messages.set(item.offset, item)
  }

  /** The message is recorded, and `pulls` have been begun so far. */
  recorded(item: LaneItem, pulls: number): void {
    if (this.#messages.get(item.offset) === item) this.#messages.set(item.offset, pulls)
  }

  /** The lease of the message is lost. */
  lost(item: LaneItem): void {
    if (this.#messages.get(item.offset) === item) this.#messages.delete(item.offset)
  }

  /** Whether a message that pull number `pull` has brought may have been granted ahead of one that was given up. */
  crosses(offset: number, pull: number): boolean {
    this.#messages.delete(offset)
    this.#forgetBefore(pull)
    for (const [other, state] of this.#messages) {
      if (other < offset && (typeof state !== 'number' || state >= pull)) return true
    }
    return false
  }

  #forgetBefore(pull: number): void {
    for (const [offset, state] of this.#messages) {
      if (typeof state !== 'number' || state >= pull) return
      this.#messages.delete(offset)
    }
  }
}
