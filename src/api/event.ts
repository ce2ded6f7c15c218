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

/**
 * A transaction on Postgres, as a transactional handler is given it: a client of `pg`, of which this is what most
 * handlers need. Whoever needs more of it, or hands it to a library, names the type of `pg` itself:
 * `TransactionalContext<PoolClient>`.
 */
export interface PostgresTransaction {
  /** Carries out one statement, whose parameters stand in it as $1, $2, ... */
  query<Row = Readonly<Record<string, unknown>>>(
    text: string,
    values?: readonly unknown[],
  ): Promise<{ readonly rows: Row[]; readonly rowCount: number | null }>
}

/**
 * What a transactional handler is told: no steps, because what they keep could not be written meanwhile. `Transaction`
 * is what the store's engine has for a transaction: `DatabaseSync` on `sqlite:`, which need not be said, and
 * `PostgresTransaction` on `postgres:`, which a handler says by the type of its context:
 * `(event, { tx }: TransactionalContext<PostgresTransaction>) => ...`.
 */
export interface TransactionalContext<Transaction = DatabaseSync> extends Omit<DeliveryContext, 'step'> {
  /**
   * The connection of Posthorn's own on which the transaction is open that the acknowledgement will be part of. Of use
   * only until the handler ends: then it, and the statements that it prepared, throw POSTHORN_INVALID_TRANSACTION. It
   * stands in for the connection: `backup()` of node:sqlite, which needs the connection itself, ends the process.
   */
  readonly tx: Transaction
}

/** As `Handler`, within a transaction; see `TransactionalSubscribeOptions`. */
export type TransactionalHandler<Output, Transaction = DatabaseSync> = (
  event: DeliveredEvent<Serialized<Output>>,
  context: TransactionalContext<Transaction>,
) => unknown

/** As `Handler`, for several events at once; `context.fail` marks single ones as failed. There are no steps. */
export type BatchHandler<Output> = (
  events: readonly DeliveredEvent<Serialized<Output>>[],
  context: BatchContext,
) => unknown
