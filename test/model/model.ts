import { type HeldLease, SubscriptionModel } from './subscription-model.ts'

/** One isolates what a lost session held at once, the other gives it a second chance first. */
export const SUBSCRIPTIONS = [
  { subscription: 'first', maxCrashes: 1 },
  { subscription: 'second', maxCrashes: 3 },
] as const
export const WINDOW_MS = 10_000

/** What the store owes to all, and what it remembers. */
export class Model {
  readonly subscriptions: readonly SubscriptionModel[] = SUBSCRIPTIONS.map(
    ({ subscription, maxCrashes }) => new SubscriptionModel(subscription, maxCrashes),
  )
  /** By the time until which sessions that died may still look alive. */
  sessionsLostAtMs = 0
  readonly #idExpiriesMs = new Map<string, number>()
  #published = 0

  /** The data of the next message. */
  nextMessage(): number {
    return this.#published++
  }

  /** Whether the id is new; notes it if so. */
  rememberId(id: string, nowMs: number): boolean {
    if ((this.#idExpiriesMs.get(id) ?? 0) > nowMs) return false
    this.#idExpiriesMs.set(id, nowMs + WINDOW_MS)
    return true
  }

  publish(message: number, notBeforeMs: number): void {
    for (const subscription of this.subscriptions) subscription.publish(message, notBeforeMs)
  }

  heldLeases(): readonly { readonly subscription: SubscriptionModel; readonly lease: HeldLease }[] {
    return this.subscriptions.flatMap((subscription) =>
      subscription.heldLeases().map((lease) => ({ subscription, lease })),
    )
  }
}
