/**
 * Transactional handlers: what a handler writes, what it publishes, and the acknowledgement of its message commit
 * together, on a connection of the engine's that it is lent. The subscription is locked only for the end of it, when the
 * lease is looked at and its message settled; a lease that was lost by then rolls everything back.
 *
 * A handler occupies a connection for as long as it runs, so that only so many run at once: the others wait, and some
 * connections are left to the engine itself, without which no handler could end.
 *
 * A transaction is waiting for its turn, begun, with the handler, settling, or over. It is marked when it begins: a
 * handler that ends it, by a statement that `Loan` does not know for one, is found out by the mark. What a handler is
 * still waiting for when it rejects is cancelled, so that its transaction ends at once.
 */
import type { LeaseId, Settlement } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Transaction } from '../database/statement.ts'
import { contains } from '../delivery/lease.ts'
import type { SubscriptionKey, SubscriptionRow, Turn, Turns } from '../delivery/turns.ts'
import { outbox, publishing } from '../sql/outbox.ts'
import { Loan } from './lent-client.ts'
import { Places } from './places.ts'

export type TransactOutcome = 'committed' | 'fenced'

export interface TransactionParts {
  readonly database: Database
  readonly turns: Turns
  readonly settling: {
    /** Resolves with the leases that are not the source's any more. */
    settle(turn: Turn, source: string, settlements: readonly Settlement[]): Promise<readonly LeaseId[]>
  }
  /** A message of the subscription is settled, and committed. */
  onSettled(subscription: SubscriptionRow): void
}

type Client = ConstructorParameters<typeof Loan>[0]

interface Task {
  readonly key: SubscriptionKey
  readonly source: string
  readonly lease: LeaseId
  readonly offset: number
  readonly work: (transaction: unknown) => Promise<void>
}

interface Settled {
  readonly saved: Awaited<ReturnType<Turns['save']>>
  readonly subscription: SubscriptionRow
}

/** What the transaction is rolled back for. */
type Refusal = { readonly error: unknown } | 'fenced'

/** What resists for so long is waited for. */
const CANCELS_MAX = 1_000

/** Connections that handlers leave to the engine. */
const CONNECTIONS_LEFT = 2

export class HandlerTransactions {
  readonly #parts: TransactionParts
  readonly #places: Places
  readonly #closing = new AbortController()

  constructor(parts: TransactionParts) {
    this.#parts = parts
    this.#places = new Places(Math.max(1, parts.database.address.connectionsMax - CONNECTIONS_LEFT))
  }

  /** See `Source.transact`. */
  async transact(
    key: SubscriptionKey,
    source: string,
    lease: LeaseId,
    offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<TransactOutcome> {
    await this.#places.take()
    try {
      return await this.#carryOut({ key, source, lease, offset, work })
    } finally {
      this.#places.giveBack()
    }
  }

  /** Rolls back what is under way. */
  close(): void {
    this.#closing.abort(closed())
  }

  async #carryOut(task: Task): Promise<TransactOutcome> {
    this.#closing.signal.throwIfAborted()
    const { database, turns } = this.#parts
    const effects: (() => void)[] = []
    let refusal: Refusal | undefined
    try {
      const carryOut = async (rows: Transaction, client: Client): Promise<Settled> => {
        database.lend(client)
        // Whom to cancel, which a pooler hides.
        const asked = rows.rows<{ pid: number }>(outbox.server)
        const [server] = await Promise.all([asked, rows.rows(publishing.mark, 'outbox')])
        refusal = await this.#runHandler(client, task, server[0]!.pid)
        if (refusal) throw new RolledBack()
        const settled = await this.#settle(rows, client, task, effects)
        if (settled) return settled
        refusal = 'fenced'
        throw new RolledBack()
      }
      // Never tried again: the handler runs once.
      const { saved, subscription } = await database.transaction(carryOut, 1)
      turns.remember(saved)
      for (const effect of effects) effect()
      this.#parts.onSettled(subscription)
      return 'committed'
    } catch (error) {
      if (refusal === 'fenced') return 'fenced'
      throw refusal ? refusal.error : error
    }
  }

  async #runHandler(client: Client, { work }: Task, serverPid: number): Promise<Refusal | undefined> {
    const loan = new Loan(client)
    const { signal } = this.#closing
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      await Promise.race([work(loan.client), aborted])
      // It is known before the state is that it has left the transaction in.
      if (loan.firstFailure !== undefined) await client.query('SELECT').catch(() => {})
      // The handler has caught it, but nothing can be committed any more.
      return client.getTransactionStatus() === 'E' ? { error: loan.firstFailure ?? ended() } : undefined
    } catch (error) {
      await this.#cancel(serverPid, loan)
      return { error }
    } finally {
      signal.removeEventListener('abort', abort)
      loan.end()
    }
  }

  /** Nothing if the lease was lost. */
  async #settle(
    rows: Transaction,
    client: Client,
    { key, source, lease, offset }: Task,
    effects: (() => void)[],
  ): Promise<Settled | undefined> {
    const { turns, settling } = this.#parts
    const asked = rows.rows<{ inside: boolean }>(outbox.inside)
    // Not at the commit: it may wait for what others have locked, and all would wait for the subscription meanwhile.
    const checked = rows.run(outbox.checkDeferred)
    // Not before these: the answer is in a setting, and constraints may be checked by triggers that read others.
    this.#parts.database.takeBack(client)
    const [inside, , opened] = await Promise.all([asked, checked, turns.open(rows, [key.subscriptionId], effects)])
    if (!inside[0]!.inside) throw ended()
    const turn = opened.get(key.subscriptionId)
    const held = turn?.state.heldBy(source, lease)
    if (!turn || !held || !contains(held.open, offset)) return undefined
    const settlement = { lease, acked: [offset, offset + 1], exceptions: [], stepped: [offset] }
    const fenced = await settling.settle(turn, source, [settlement])
    if (fenced.length > 0) return undefined
    return { saved: turns.save(rows, [turn]), subscription: turn.subscription }
  }

  // A statement that the server has not begun yet is not cancelled: so again, until all have ended. The transaction is
  // open until then, so that it is nobody else's statement, also behind a pooler.
  async #cancel(serverPid: number, loan: Loan): Promise<void> {
    for (let tries = 0; loan.isBusy && tries < CANCELS_MAX; tries++) {
      await this.#parts.database.rows(outbox.cancel, serverPid).catch(() => {})
    }
  }
}

/** Makes a transaction end by being rolled back; nobody sees it. */
class RolledBack extends Error {}

function closed(): PosthornError {
  return new PosthornError('POSTHORN_CLOSED', { operation: 'the transaction of a handler' })
}

function ended(): PosthornError {
  const problem = 'the handler ended it, so that what it wrote before was not committed together with the message'
  return new PosthornError('POSTHORN_INVALID_TRANSACTION', { problem })
}
