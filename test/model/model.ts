import { OrderedModel } from './ordered-model.ts'
import { type HeldLease, SubscriptionModel } from './subscription-model.ts'

/** One isolates what a lost session held at once, the others give it a second chance first. */
export const SUBSCRIPTIONS = [
  { subscription: 'first', maxCrashes: 1, ordered: false },
  { subscription: 'second', maxCrashes: 3, ordered: false },
  { subscription: 'ordered', maxCrashes: 3, ordered: true },
] as const
export const WINDOW_MS = 10_000

export interface PublishedMessage {
  readonly message: number
  readonly id: string
  readonly notBeforeMs: number
}

/** What the store owes to all, and what it remembers. */
export class Model {
  readonly ordered = new OrderedModel('ordered', 3)
  readonly subscriptions: readonly SubscriptionModel[] = [
    new SubscriptionModel('first', 1),
    new SubscriptionModel('second', 3),
    this.ordered,
  ]
  /** What was published and stored, and is not known to be settled. */
  readonly published: PublishedMessage[] = []
  /** By the time until which sessions that died may still look alive. */
  sessionsLostAtMs = 0
  /** Seeks may bring back what was cancelled, or not. */
  readonly cancelled = new Set<number>()
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

  publish(published: PublishedMessage, key: string | undefined): void {
    const { message, notBeforeMs } = published
    this.published.push(published)
    for (const subscription of this.subscriptions) subscription.publish(message, notBeforeMs, key)
  }

  heldLeases(): readonly { readonly subscription: SubscriptionModel; readonly lease: HeldLease }[] {
    return this.subscriptions.flatMap((subscription) =>
      subscription.heldLeases().map((lease) => ({ subscription, lease })),
    )
  }
}
