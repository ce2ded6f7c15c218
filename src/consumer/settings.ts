import type { Limit, StoredEvent } from '../engine.ts'
import type { BreakerSettings } from './breaker/settings.ts'
import type { BatchContext } from './delivery/batch-delivery.ts'
import type { DeliveryContext } from './delivery/delivery.ts'
import type { RetryPolicy } from './retry-policy.ts'

/** What a consumer runs by; validated and normalised before it comes here. */
export interface ConsumerSettings {
  readonly topic: string
  readonly subscription: string
  /** Handler calls running at once. */
  readonly concurrency: number
  /** How long one handler call may take, in milliseconds. */
  readonly timeoutMs: number
  readonly retry: RetryPolicy
  /** Messages that a batch handler is called with at most, and how long the first of them waits for the others. */
  readonly batch?: { readonly size: number; readonly waitMs: number }
  /** How long `close()` waits for running handlers before it aborts their signals, in milliseconds. */
  readonly drainMs: number
  /** Messages of one key run one after the other; `onExhausted` says what becomes of its others after the last attempt. */
  readonly ordered: false | { readonly onExhausted: 'dead-letter' | 'block' }
  /** What may start, over all processes. */
  readonly limits: readonly ConfiguredLimit[]
  /** Undefined: none. */
  readonly breaker?: BreakerSettings
  /** Single handlers run in a transaction that holds their settlement too. */
  readonly transactional: boolean
}

/** Without `by`, all messages share one bucket. What `by` throws makes the message a dead letter (`invalid`). */
export type ConfiguredLimit = Limit & { readonly by?: (event: StoredEvent) => string }

/** Returns or resolves: acknowledged. Throws or rejects: tried again by the retry policy. */
export type Handle = (event: StoredEvent, context: DeliveryContext) => unknown
/** As `Handle`, for all events at once; `context.fail` marks single ones as failed. */
export type HandleBatch = (events: readonly StoredEvent[], context: BatchContext) => unknown
/** Returns the event to hand over. When it throws or rejects, the message becomes a dead letter (`invalid`). */
export type CheckEvent = (event: StoredEvent) => StoredEvent | Promise<StoredEvent>

export interface SingleHandler {
  readonly handle: Handle
  readonly handleBatch?: undefined
  readonly checkEvent?: CheckEvent | undefined
}

export interface BatchHandler {
  readonly handleBatch: HandleBatch
  readonly handle?: undefined
  readonly checkEvent?: CheckEvent | undefined
}

export type Handlers = SingleHandler | BatchHandler
