import { LeaseRows } from '../delivery/leases.ts'
import type { Statements } from '../file/connection.ts'
import { Log } from '../log/log.ts'
import { MessageReader } from '../log/message-reader.ts'
import { Chains } from '../order/chains.ts'
import { Exceptions } from './exceptions.ts'
import { Settling } from './settling.ts'
import { Steps } from './steps.ts'

/** All that it takes to find a message under lease, and to settle it. */
export interface SettlementParts {
  readonly log: Log
  readonly leases: LeaseRows
  readonly chains: Chains
  readonly exceptions: Exceptions
  readonly steps: Steps
  readonly settling: Settling
}

/** On the thread's connection, or on that of handlers. */
export function settlementParts(statements: Statements): SettlementParts {
  const log = new Log(statements)
  const leases = new LeaseRows(statements)
  const chains = new Chains(statements)
  const exceptions = new Exceptions(statements, new MessageReader(log), chains)
  const steps = new Steps(statements)
  return { log, leases, chains, exceptions, steps, settling: new Settling(leases, exceptions, chains, steps) }
}
