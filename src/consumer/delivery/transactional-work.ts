/**
 * Runs each handler within a transaction of the store, which the engine commits together with the acknowledgement of
 * the message. In all else it is `SingleWork`: the check of the event comes before the transaction begins, expiry,
 * suspects and failures are the same.
 *
 * A delivery that ends well is committed, and recorded by that; or its lease was lost, and all of it is rolled back. It
 * is then given up as if it had been told to stop: the engine answers that by saying what became of the lease. A handler
 * that outruns its timeout, or whose signal aborts, commits nothing, however well it ends: its attempt has been counted
 * as failed, or its message is somebody else's. Its transaction is rolled back at once, and holds no lock any more.
 *
 * A handler's time begins with its transaction. When no transaction could be begun, the handler was never called: the message is set aside for a moment, uncounted. So
 * it is, too, when it has waited for one as long as its handler may take, because others had all that the store has.
 */
import type { Source } from '../../engine.ts'
import { OnceAMinute } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { invalidOption } from '../../message/options.ts'
import type { Item } from '../fetching/supply.ts'
import type { SingleHandler } from '../settings.ts'
import { isInstance } from '../settlement/failure.ts'
import { Delivery } from './delivery.ts'
import { SingleWork } from './single-work.ts'
import type { WorkTools } from './work-tools.ts'

/** How long a message waits when the store would not begin a transaction for it. */
const LOCKED_OUT_MS = 1_000

export type Transactions = Pick<Source, 'transact'>

/** The context of a transactional handler. */
class TransactionalDelivery extends Delivery {
  tx: unknown = undefined
  /** Its event has been checked, and what comes next is its transaction. */
  asked = false
  outcome: 'committed' | 'fenced' | undefined = undefined

  override get step() {
    return refuseStep
  }
}

export class TransactionalWork extends SingleWork {
  readonly #tools: WorkTools
  readonly #warning: OnceAMinute

  constructor(tools: WorkTools, handler: SingleHandler, transactions: Transactions) {
    super(tools, {
      ...handler,
      handle: (event, context) => {
        const delivery = context as TransactionalDelivery
        const handle = () => {
          delivery.deadline = tools.environment.clock.now() + tools.settings.timeoutMs
          tools.onBegun(delivery)
          return handler.handle(event, delivery)
        }
        return transact(transactions, handle, delivery)
      },
    })
    this.#tools = tools
    this.#warning = new OnceAMinute(tools.environment.clock)
  }

  override succeeded(delivery: TransactionalDelivery): void {
    const { ledger, index, outcome } = delivery
    if (outcome === 'committed') this.#tools.finisher.recorded(ledger, index)
    else this.#giveUp(delivery)
  }

  override failed(delivery: TransactionalDelivery, thrown: unknown, nowMs: number): void {
    const { aborted, outcome, tx, ledger, index } = delivery
    const neverBegun = tx === undefined && outcome === undefined && isInstance(thrown, PosthornError)
    if (aborted || !neverBegun || !thrown.retryable) {
      super.failed(delivery, thrown, nowMs)
      return
    }
    const { topic, subscription } = delivery
    this.#tools.environment.logger.warn(thrown.message, { topic, subscription, code: thrown.code })
    this.#tools.finisher.park({ ledger, index }, nowMs + LOCKED_OUT_MS)
  }

  override timedOut(delivery: TransactionalDelivery, nowMs: number): void {
    if (!delivery.asked || delivery.tx !== undefined) {
      super.timedOut(delivery, nowMs)
      return
    }
    const { ledger, index, subscription } = delivery
    const { timeoutMs } = this.#tools.settings
    this.#warnOfWaiting(delivery, timeoutMs)
    this.#tools.finisher.park({ ledger, index }, nowMs + LOCKED_OUT_MS)
    delivery.abort(new PosthornError('POSTHORN_HANDLER_TIMEOUT', { subscription, timeoutMs }))
  }

  override endedLate(delivery: TransactionalDelivery, durationMs: number): void {
    if (!delivery.asked || delivery.tx !== undefined) super.endedLate(delivery, durationMs)
  }

  protected override delivery({ ledger, index }: Item, deadline: number): Delivery {
    return new TransactionalDelivery(ledger, index, this.#tools, deadline)
  }

  // It may be so of each message.
  #warnOfWaiting({ topic, subscription }: TransactionalDelivery, timeoutMs: number): void {
    if (!this.#warning.isDue()) return
    const text =
      'Messages waited for a transaction for as long as their handlers may take, and are tried again, uncounted.'
    this.#tools.environment.logger.warn(text, { topic, subscription, timeoutMs })
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
  handle: () => unknown,
  delivery: TransactionalDelivery,
): Promise<void> {
  const { lease, offset } = delivery
  delivery.asked = true
  delivery.outcome = await transactions.transact(lease, offset, async (transaction) => {
    // It may have been given up while others had their turn.
    throwIfAborted(delivery)
    delivery.tx = transaction
    await Promise.race([handle(), whenAborted(delivery.signal)])
    throwIfAborted(delivery)
  })
}

function throwIfAborted(delivery: Delivery): void {
  if (delivery.aborted) delivery.signal.throwIfAborted()
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}

// Types keep TypeScript from getting here.
async function refuseStep(): Promise<never> {
  const problem = 'its handlers have no steps, whose results could not be stored while the transaction is open'
  throw invalidOption('transactional', problem)
}
