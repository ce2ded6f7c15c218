/**
 * The subscriptions that are open on one connection.
 *
 * Invariant: those open under one topic and name have equal settings. Two handlers under one name compete for its
 * messages, which is right for two halves of one program, and a mistake when the settings differ.
 */
import { isDeepStrictEqual } from 'node:util'
import { PosthornError } from '../errors.ts'
import type { SubscriptionSettings } from './subscribe-options.ts'
import type { Subscription } from './subscription.ts'

const optionBySetting: Readonly<Record<keyof SubscriptionSettings, string>> = {
  concurrency: 'concurrency',
  timeoutMs: 'timeout',
  retry: 'retry',
  batch: 'batch',
  start: 'from',
  maxCrashes: 'maxCrashes',
}

export class OpenSubscriptions {
  readonly #settings = new Map<Subscription, SubscriptionSettings>()

  /** Throws POSTHORN_SUBSCRIPTION_CONFLICT. */
  check(topic: string, name: string, settings: SubscriptionSettings): void {
    for (const [open, others] of this.#settings) {
      if (open.topic !== topic || open.name !== name) continue
      const setting = firstDifference(settings, others)
      if (setting === undefined) continue
      throw new PosthornError('POSTHORN_SUBSCRIPTION_CONFLICT', { topic, subscription: name, setting })
    }
  }

  add(subscription: Subscription, settings: SubscriptionSettings): void {
    this.#settings.set(subscription, settings)
  }

  delete(subscription: Subscription): void {
    this.#settings.delete(subscription)
  }

  async closeAll(): Promise<void> {
    const closed = await Promise.allSettled([...this.#settings.keys()].map((subscription) => subscription.close()))
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason
  }
}

function firstDifference(settings: SubscriptionSettings, others: SubscriptionSettings): string | undefined {
  for (const [setting, option] of Object.entries(optionBySetting) as [keyof SubscriptionSettings, string][]) {
    if (!isDeepStrictEqual(settings[setting], others[setting])) return option
  }
  return undefined
}
