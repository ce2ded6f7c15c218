import type { Grant } from '../../../engine.ts'
import { dueAtMs } from '../settlement/set-aside.ts'
import { grantFresh } from './fresh.ts'
import type { Leasing } from './leasing.ts'

// What failed or came back goes first; but in one pull of so many, new messages do, so that they never starve.
const PULLS_BETWEEN_FRESH_FIRST = 4

/** Decides what one pull gets, and leases it, as far as its limits allow. */
export function grant(leasing: Leasing): readonly Grant[] {
  if (leasing.request.subscription.ordered) grantOrdered(leasing)
  else grantUnordered(leasing)
  return leasing.grants
}

/** In this order: one suspect, what was set aside and is due, returned ranges, new messages. */
function grantUnordered(leasing: Leasing): void {
  const { subscription, turn } = leasing.request
  const partitions = rotated([...subscription.topic.logs.keys()], turn)
  if (isFreshFirst(turn)) grantFresh(leasing, partitions)
  grantSuspect(leasing)
  grantDue(leasing)
  for (const range of subscription.returned.all.filter((each) => !subscription.isSuspect(each))) {
    if (leasing.isFull()) break
    leasing.returned(range, leasing.messagesLeft)
  }
  if (!isFreshFirst(turn)) grantFresh(leasing, partitions)
}

function grantSuspect(leasing: Leasing): void {
  const { subscription, nowMs } = leasing.request
  for (const row of subscription.rows.due(nowMs)) {
    if (leasing.isFull()) return
    const isSuspect = subscription.isSuspect(row.history)
    if (isSuspect && leasing.allows(row.history) && leasing.row(row)) return
  }
  for (const range of subscription.returned.all.filter((each) => subscription.isSuspect(each))) {
    if (leasing.isFull() || !leasing.allows(range) || leasing.returned(range, 1)) return
  }
}

function grantDue(leasing: Leasing): void {
  const { subscription, nowMs } = leasing.request
  for (const row of subscription.rows.due(nowMs)) {
    if (leasing.isFull()) return
    if (!subscription.isSuspect(row.history)) leasing.row(row)
  }
}

/**
 * Of each partition that the source owns, what came back goes first, in offset order, and nothing else of the partition
 * before all of it is out: nobody knows which keys it holds. Then what was set aside and is due, and new messages.
 */
function grantOrdered(leasing: Leasing): void {
  const { subscription, holder, turn, nowMs } = leasing.request
  subscription.ownership.acquire(holder, nowMs)
  const owned = rotated(subscription.ownership.active(holder), turn)
  const clear = owned.filter((partition) => grantAllReturned(leasing, partition))
  if (isFreshFirst(turn)) grantFresh(leasing, clear)
  grantDueOfChains(leasing, new Set(clear))
  if (!isFreshFirst(turn)) grantFresh(leasing, clear)
}

/** Returns whether everything of the partition that had come back is out. */
function grantAllReturned(leasing: Leasing, partition: number): boolean {
  const { subscription } = leasing.request
  const { returned } = subscription
  for (let range = returned.first(partition); range; range = returned.first(partition)) {
    if (leasing.isFull() || !leasing.allows(range)) return false
    leasing.returned(range, subscription.isSuspect(range) ? 1 : leasing.messagesLeft)
  }
  return true
}

function grantDueOfChains(leasing: Leasing, partitions: ReadonlySet<number>): void {
  const { subscription, nowMs } = leasing.request
  const due = subscription.rows.due(nowMs).filter(({ partition }) => partitions.has(partition))
  for (const row of due.toSorted((one, other) => dueAtMs(one) - dueAtMs(other) || one.offset - other.offset)) {
    if (leasing.isFull()) return
    if (leasing.allows(row.history) && subscription.chains.isFree(row)) leasing.row(row)
  }
}

function isFreshFirst(turn: number): boolean {
  return turn % PULLS_BETWEEN_FRESH_FIRST === PULLS_BETWEEN_FRESH_FIRST - 1
}

function rotated(partitions: readonly number[], turn: number): readonly number[] {
  const start = partitions.length === 0 ? 0 : turn % partitions.length
  return [...partitions.slice(start), ...partitions.slice(0, start)]
}
