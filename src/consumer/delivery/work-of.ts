import type { Breaker } from '../breaker/breaker.ts'
import { BreakerWork } from '../breaker/breaker-work.ts'
import type { Item } from '../fetching/supply.ts'
import type { Handlers } from '../settings.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import type { Abortable } from './abortable.ts'
import { BatchWork } from './batch-work.ts'
import type { Work } from './runner.ts'
import { SingleWork } from './single-work.ts'
import { TransactionalWork, type Transactions } from './transactional-work.ts'
import type { WorkTools } from './work-tools.ts'

/** A run whose leases and messages can be told. */
export interface Held extends Abortable {
  holds(ledger: GrantLedger): boolean
  includes(item: Item): boolean
}

/** What a subscription's runner runs: its handlers, one by one, in transactions or in batches; behind its breaker. */
export function workOf(
  tools: WorkTools,
  handlers: Handlers,
  transactions: Transactions,
  breaker: Breaker | undefined,
): Work<Held> {
  const { batch, transactional } = tools.settings
  if (handlers.handle !== undefined) {
    const work = transactional ? new TransactionalWork(tools, handlers, transactions) : new SingleWork(tools, handlers)
    return breakable(breaker, work, () => true)
  }
  const batches = new BatchWork(tools, handlers, batch ?? { size: 1, waitMs: 0 })
  return breakable(breaker, batches, ({ items, failed }) => failed.size < items.length)
}

function breakable<Run extends Held>(
  breaker: Breaker | undefined,
  work: Work<Run>,
  worked: (run: Run) => boolean,
): Work<Run> {
  return breaker === undefined ? work : new BreakerWork(breaker, work, worked)
}
