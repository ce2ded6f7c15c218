/**
 * The subscriptions that are open on one connection.
 *
 * Invariant: those open under one topic and name have equal settings. Two handlers under one name compete for its
 * messages, which is right for two halves of one program, and a mistake when the settings differ. Functions among the
 * settings are equal when their source is: the same code, run twice, makes two of them.
 */
import { PosthornError } from '../errors.ts'
import type { SubscriptionSettings } from './subscribe-options.ts'
import type { Subscription } from './subscription.ts'

const optionBySetting: Readonly<Record<Exclude<keyof SubscriptionSettings, 'limits'>, string>> = {
  concurrency: 'concurrency',
  timeoutMs: 'timeout',
  retry: 'retry',
  batch: 'batch',
  start: 'from',
  maxCrashes: 'maxCrashes',
  ordered: 'ordered',
  maxParked: 'maxParked',
  breaker: 'breaker',
  transactional: 'transactional',
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
    if (textOf(settings[setting]) !== textOf(others[setting])) return option
  }
  return differingLimits(settings.limits, others.limits)
}

function differingLimits(limits: Limits, others: Limits): string | undefined {
  const differs = (kind: string) => textOf(limits.filter(isOf(kind))) !== textOf(others.filter(isOf(kind)))
  if (differs('rate')) return 'rateLimit'
  return differs('inFlight') ? 'maxInFlight' : undefined
}

type Limits = SubscriptionSettings['limits']

function isOf(kind: string): (limit: Limits[number]) => boolean {
  return (limit) => limit.kind === kind
}

// Settings are plain data, always written in the same order, but for their functions.
function textOf(setting: unknown): string | undefined {
  return JSON.stringify(setting, (_name, value: unknown) => (typeof value === 'function' ? String(value) : value))
}
