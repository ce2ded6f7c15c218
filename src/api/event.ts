import type { BatchContext } from '../consumer/delivery/batch-delivery.ts'
import type { DeliveryContext } from '../consumer/delivery/delivery.ts'
import type { StoredEvent } from '../engine.ts'
import type { Serialized } from './serialized.ts'

/**
 * What a handler is given: a CloudEvents 1.0 event, deeply frozen. `type` is the topic, `subject` the key, and
 * headers are attributes beside them.
 */
export interface DeliveredEvent<Data> extends StoredEvent {
  readonly data: Data
}

/** Returns or resolves: acknowledged. Throws: tried again by the retry policy; see also `Discard` and `RetryAfter`. */
export type Handler<Output> = (event: DeliveredEvent<Serialized<Output>>, context: DeliveryContext) => unknown

/** As `Handler`, for several events at once; `context.fail` marks single ones as failed. */
export type BatchHandler<Output> = (
  events: readonly DeliveredEvent<Serialized<Output>>[],
  context: BatchContext,
) => unknown
