/**
 * When the batches of a subscription with limits start. First their messages gather: until there are enough for a
 * batch, or the first of them has waited for as long as it may, no permission is asked for, because one lasts only for
 * a moment. Then their permissions gather: those that there are wait for further ones, for as long as half of their
 * grace. The other half is for an event loop that is late.
 */
import type { ConfiguredLimit, ConsumerSettings } from '../settings.ts'
import type { WaitingRoom } from './waiting-room.ts'

const NEVER_TOO_SOON = Number.NEGATIVE_INFINITY

export class Gathering {
  readonly #batch: ConsumerSettings['batch']
  readonly #room: WaitingRoom
  readonly #holdMs: number
  readonly #hasRates: boolean

  constructor(
    batch: ConsumerSettings['batch'],
    limits: readonly ConfiguredLimit[],
    room: WaitingRoom,
    graceMs: number,
  ) {
    this.#batch = batch
    this.#room = room
    this.#holdMs = graceMs / 2
    this.#hasRates = limits.some(({ kind }) => kind === 'rate')
  }

  /** Until when messages gather. In the past: they do not, or have. `full`: no more can come. */
  messagesUntilMs(full: boolean): number {
    if (this.#batch === undefined || this.#batch.waitMs === 0) return NEVER_TOO_SOON
    if (full || this.#room.waiting >= this.#batch.size) return NEVER_TOO_SOON
    return this.#room.oldestArrivedAtMs + this.#batch.waitMs
  }

  /** Until when what may start now, `count` messages, waits for more. Undefined: there is nothing. */
  startByMs(count: number, full: boolean, nowMs: number): number | undefined {
    const usableSinceMs = this.#room.usableSinceMs
    if (usableSinceMs === undefined || this.#batch === undefined) return undefined
    const heldUntilMs = usableSinceMs + this.#holdMs
    const messagesUntilMs = this.messagesUntilMs(full)
    if (messagesUntilMs > nowMs) return Math.min(messagesUntilMs, heldUntilMs)
    const all = count >= Math.min(this.#batch.size, this.#room.waiting)
    return all || !this.#hasRates ? NEVER_TOO_SOON : heldUntilMs
  }
}
