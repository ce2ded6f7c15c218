/**
 * Runs each handler within a transaction of the store, which the engine commits together with the acknowledgement of
 * the message. In all else it is `SingleWork`: the check of the event comes before the transaction begins, expiry,
 * suspects and failures are the same.
 *
 * A delivery that ends well is committed, and recorded by that; or its lease was lost, and all of it is rolled back. It
 * is then given up as if it had been told to stop: the engine answers that by saying what became of the lease. A handler
 * that outruns its timeout, or ends after its signal has aborted, commits nothing, however well it ends: its attempt has
 * been counted as failed, or its message is somebody else's. The transaction itself stays open until the handler ends.
 */
import type { Source, StoredEvent } from '../../engine.ts'
import { invalidOption } from '../../message/options.ts'
import type { Item } from '../fetching/supply.ts'
import type { Handle, SingleHandler } from '../settings.ts'
import { Delivery } from './delivery.ts'
import { SingleWork } from './single-work.ts'
import type { WorkTools } from './work-tools.ts'

type Transactions = Pick<Source, 'transact'>

/** The context of a transactional handler. */
class TransactionalDelivery extends Delivery {
  tx: unknown = undefined
  outcome: 'committed' | 'fenced' | undefined = undefined

  override get step() {
    return refuseStep
  }
}

export class TransactionalWork extends SingleWork {
  readonly #tools: WorkTools

  constructor(tools: WorkTools, handler: SingleHandler, transactions: Transactions) {
    super(tools, {
      ...handler,
      handle: (event, context) => transact(transactions, handler.handle, event, context as TransactionalDelivery),
    })
    this.#tools = tools
  }

  override succeeded(delivery: TransactionalDelivery): void {
    const { ledger, index, outcome } = delivery
    if (outcome === 'committed') this.#tools.finisher.recorded(ledger, index)
    else this.#giveUp(delivery)
  }

  protected override delivery({ ledger, index }: Item, deadline: number): Delivery {
    return new TransactionalDelivery(ledger, index, this.#tools, deadline)
  }

  #giveUp({ ledger, index, topic, subscription, partition, offset }: TransactionalDelivery): void {
    const { finisher, environment } = this.#tools
    const fields = { topic, subscription, partition, offset }
    environment.logger.debug('A transaction was rolled back, because the lease of its message was lost.', fields)
    finisher.release(ledger, index)
  }
}

async function transact(
  transactions: Transactions,
  handle: Handle,
  event: StoredEvent,
  delivery: TransactionalDelivery,
): Promise<void> {
  const { lease, offset } = delivery
  delivery.outcome = await transactions.transact(lease, offset, async (transaction) => {
    // It may have been given up while others had their turn.
    throwIfAborted(delivery)
    delivery.tx = transaction
    await handle(event, delivery)
    throwIfAborted(delivery)
  })
}

function throwIfAborted(delivery: Delivery): void {
  if (delivery.aborted) delivery.signal.throwIfAborted()
}

// Types keep TypeScript from getting here.
async function refuseStep(): Promise<never> {
  const problem = 'its handlers have no steps, whose results could not be stored while the transaction is open'
  throw invalidOption('transactional', problem)
}
