import type { DeadReason } from '../engine.ts'
import type { Random } from '../environment/index.ts'
import { Discard, RetryAfter } from '../errors.ts'
import { parseDuration } from '../message/duration.ts'
import { isInstance } from './failure.ts'
import { type RetryPolicy, retryDelayMs } from './retry-policy.ts'

/** Stands for what the check of an event threw. */
export class InvalidEvent extends Error {
  override readonly name = 'InvalidEvent'
  constructor(cause: unknown) {
    super('The event did not pass its check.', { cause })
  }
}

/** What becomes of a message whose attempt failed. */
export type Verdict =
  | { readonly kind: 'retry'; readonly delayMs: number }
  | { readonly kind: 'dead'; readonly reason: DeadReason }

export function verdictOn(thrown: unknown, attempt: number, policy: RetryPolicy, random: Random): Verdict {
  if (isInstance(thrown, InvalidEvent)) return { kind: 'dead', reason: 'invalid' }
  if (isInstance(thrown, Discard)) return { kind: 'dead', reason: 'discarded' }
  if (attempt >= policy.attempts) return { kind: 'dead', reason: 'attempts' }
  const askedMs = isInstance(thrown, RetryAfter) ? askedDelayMs(thrown) : undefined
  return { kind: 'retry', delayMs: askedMs ?? retryDelayMs(policy.backoff, attempt, random) }
}

// A delay that cannot be read leaves the policy to decide: the message has failed once, and must not get lost.
function askedDelayMs(retryAfter: RetryAfter): number | undefined {
  try {
    return parseDuration(retryAfter.delay, 'delay')
  } catch {
    return undefined
  }
}
