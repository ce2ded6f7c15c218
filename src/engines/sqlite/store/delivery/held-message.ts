import type { LeaseId } from '../../../../engine.ts'
import type { Exceptions } from '../settlement/exceptions.ts'
import { bitsOf, type LeaseRows } from './leases.ts'

/** A message of which a lease says where it is. */
export interface HeldMessage {
  readonly subscriptionId: number
  readonly partition: number
  readonly offset: number
}

/** Finds the message if the session holds it under this lease, and it is not settled yet. */
export function findHeld(
  leases: LeaseRows,
  exceptions: Exceptions,
  lease: LeaseId,
  sessionId: number,
  offset: number,
): HeldMessage | undefined {
  const range = leases.find(lease, sessionId)
  const row = range ?? exceptions.leased(lease, sessionId)
  if (!row) return undefined
  const held = range ? bitsOf(range).isOpen(offset) : 'offset' in row && row.offset === offset
  return held ? { subscriptionId: row.subscriptionId, partition: row.partition, offset } : undefined
}
