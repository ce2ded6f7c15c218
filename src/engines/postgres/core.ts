import type { Clock, Logger } from '../../environment/index.ts'
import type { Session } from './consumers/session.ts'
import type { Database } from './database/database.ts'
import type { Granting } from './delivery/granting.ts'
import type { Turns } from './delivery/turns.ts'
import type { Wakes } from './delivery/wakes.ts'
import type { Admissions } from './limits/admissions.ts'
import type { Breakers } from './limits/breakers.ts'
import type { Chains } from './order/chains.ts'
import type { HandlerTransactions } from './outbox/handler-transactions.ts'
import type { SetAside } from './settlement/set-aside.ts'
import type { Settling } from './settlement/settling.ts'
import type { Steps } from './settlement/steps.ts'
import type { PostgresSource } from './source.ts'
import type { SourceKey } from './source-turns.ts'

/** The parts of an engine that its sources use. */
export interface Core {
  readonly clock: Clock
  readonly logger: Logger
  readonly database: Database
  readonly session: Session
  /** Those that are open. */
  readonly sources: Set<PostgresSource>
  /** Those that are closed, and have not given back yet what they had. */
  readonly leaving: Set<PostgresSource>
  readonly turns: Turns
  readonly wakes: Wakes
  readonly granting: Granting
  readonly setAside: SetAside
  readonly settling: Settling
  readonly chains: Chains
  readonly steps: Steps
  readonly admissions: Admissions
  readonly breakers: Breakers
  readonly transactions: HandlerTransactions
  /** Whether other processes can say what they have changed. */
  readonly hasNotices: boolean
  /** Throws POSTHORN_CLOSED once the engine is. */
  requireOpen(operation: string): void
  /** With held time: resolves when all is done that the clock has brought about. */
  caughtUp(): Promise<void>
  /** Whether some source of this engine has a suspect. */
  hasSuspectOut(): boolean
  /** Something of the subscription may now be granted to others, here or in other processes. */
  changed(key: SourceKey): void
  /** Messages of a queue were settled, and can be deleted. */
  settledInQueue(key: SourceKey): void
}
