import type { DeadReason } from '../../engine.ts'
import type { Random } from '../../environment/index.ts'
import { Discard, RetryAfter } from '../outcomes.ts'
import { type RetryPolicy, retryDelayMs } from '../retry-policy.ts'
import { isInstance } from './failure.ts'

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
  const askedMs = isInstance(thrown, RetryAfter) ? thrown.delayMs : undefined
  return { kind: 'retry', delayMs: askedMs ?? retryDelayMs(policy.backoff, attempt, random) }
}
