import type { DatabaseSync } from 'node:sqlite'
import type { BatchContext } from '../consumer/delivery/batch-delivery.ts'
import type { DeliveryContext } from '../consumer/delivery/delivery.ts'
import type { StoredEvent } from '../engine.ts'
import type { Serialized } from '../message/serialized.ts'

/**
 * What a handler is given: a CloudEvents 1.0 event, deeply frozen. `type` is the topic, `subject` the key, and
 * headers are attributes beside them.
 */
export interface DeliveredEvent<Data> extends StoredEvent {
  readonly data: Data
}

/** Returns or resolves: acknowledged. Throws: tried again by the retry policy; see also `Discard` and `RetryAfter`. */
export type Handler<Output> = (event: DeliveredEvent<Serialized<Output>>, context: DeliveryContext) => unknown

/** What a transactional handler is told: no steps, because what they keep could not be written meanwhile. */
export interface TransactionalContext extends Omit<DeliveryContext, 'step'> {
  /**
   * The connection of Posthorn's own on which the transaction is open that the acknowledgement will be part of. Of use
   * only until the handler ends: then it, and the statements that it prepared, throw POSTHORN_INVALID_TRANSACTION. It
   * stands in for the connection: `backup()` of node:sqlite, which needs the connection itself, ends the process. It is
   * typed for `sqlite:`, the one engine that has such handlers; an engine with another kind of transaction will have a
   * value of its own for the option `transactional`, and the type that goes with it.
   */
  readonly tx: DatabaseSync
}

/** As `Handler`, within a transaction; see `TransactionalSubscribeOptions`. */
export type TransactionalHandler<Output> = (
  event: DeliveredEvent<Serialized<Output>>,
  context: TransactionalContext,
) => unknown

/** As `Handler`, for several events at once; `context.fail` marks single ones as failed. There are no steps. */
export type BatchHandler<Output> = (
  events: readonly DeliveredEvent<Serialized<Output>>[],
  context: BatchContext,
) => unknown
