/**
 * Decides what a pull is given of a subscription, and leases it.
 *
 * It plans by offsets, then reads what it has planned: messages that retention or a purge deleted meanwhile, or that were
 * cancelled, count as settled, and damaged ones are buried. If nothing is left of a plan, it makes the next one.
 */
import type { Grant, KeyChain, StoredMessage } from '../../../engine.ts'
import { storedMessage } from '../../../message/decode.ts'
import { LaneShares } from '../../lane-shares.ts'
import type { BatchReader } from '../log/batches.ts'
import type { LogIndex } from '../log/log-index.ts'
import type { Chains } from '../order/chains.ts'
import type { Row, SetAside } from '../settlement/set-aside.ts'
import type { Settling } from '../settlement/settling.ts'
import { Allowance, type Demand, isSuspect } from './allowance.ts'
import { planFresh } from './fresh.ts'
import type { Lease, ReturnedRange } from './lease.ts'
import { Ownership } from './ownership.ts'
import { type FoundMessages, PlanReader } from './plan-reader.ts'
import type { Turn } from './turns.ts'

export interface GrantingParts {
  readonly log: LogIndex
  readonly batches: BatchReader
  readonly setAside: SetAside
  readonly settling: Settling
  readonly chains: Chains
}

export interface Granted {
  readonly grants: readonly Grant[]
  /** What could not be read. */
  readonly damaged: readonly Error[]
}

/** A lease, and the row of its message if that was set aside. */
export interface Planned {
  readonly lease: Lease
  readonly row?: Row
  readonly bytes: number
}

/** What failed or came back goes first; but in one pull of so many, new messages do, so that they never starve. */
const PULLS_BETWEEN_FRESH_FIRST = 4
/** Rows are read whole, failures and all. */
const ROWS_MAX = 64
/** A plan of which nothing is left is rare: cancelled messages, or purged ones. */
const PLANS_MAX = 1_000

export class Granting {
  readonly #parts: GrantingParts
  readonly #reader: PlanReader
  readonly #shares = new Map<number, LaneShares>()

  constructor(parts: GrantingParts) {
    this.#parts = parts
    this.#reader = new PlanReader(parts)
  }

  async grant(turn: Turn, demand: Demand): Promise<Granted> {
    if (turn.subscription.paused) return { grants: [], damaged: [] }
    const damaged: Error[] = []
    for (let plans = 0; plans < PLANS_MAX; plans++) {
      await this.#refreshLog(turn)
      const planned = await this.#plan(turn, demand)
      if (planned.length === 0) break
      const found = await this.#reader.read(turn, demand.source, planned)
      damaged.push(...found.damaged)
      const grants = await this.#toGrants(turn, found.found)
      if (grants.length > 0) return { grants, damaged }
    }
    return { grants: [], damaged }
  }

  async #refreshLog({ rows, subscription, state }: Turn): Promise<void> {
    const { topicId, generation } = subscription
    await this.#parts.log.refresh(rows, [{ topicId, generation, from: state.cursors }])
  }

  async #plan(turn: Turn, demand: Demand): Promise<readonly Planned[]> {
    const plan = new Plan(turn, demand, this.#parts.log, this.#sharesOf(turn.subscription.subscriptionId))
    await (turn.subscription.ordered ? this.#planOrdered(turn, demand, plan) : this.#planUnordered(turn, demand, plan))
    return plan.planned
  }

  /** In this order: one suspect, what was set aside and is due, returned ranges, new messages. */
  async #planUnordered(turn: Turn, demand: Demand, plan: Plan): Promise<void> {
    const { log, setAside } = this.#parts
    const partitions = rotated(log.partitions(turn.subscription.topicId), demand.turn)
    if (isFreshFirst(demand.turn)) plan.fresh(partitions)
    const due = await setAside.due(turn, ROWS_MAX)
    plan.oneSuspect(due)
    for (const row of due) if (!isSuspect(turn, row.crashes)) plan.row(row)
    for (const range of [...turn.state.returned]) if (!isSuspect(turn, range.crashes)) plan.returned(range)
    if (!isFreshFirst(demand.turn)) plan.fresh(partitions)
  }

  /**
   * Of each partition that the source owns, what came back goes first, in offset order, and nothing else of the partition
   * before all of it is out: nobody knows which keys it holds. Then what was set aside and is due, and new messages.
   */
  async #planOrdered(turn: Turn, demand: Demand, plan: Plan): Promise<void> {
    const owned = rotated(await this.#takePartitions(turn, demand.source), demand.turn)
    const clear = owned.filter((partition) => plan.allReturned(partition))
    if (isFreshFirst(demand.turn)) plan.fresh(clear)
    const due = clear.length === 0 ? [] : await this.#parts.setAside.due(turn, ROWS_MAX, clear)
    grantChains(plan, due)
    if (!isFreshFirst(demand.turn)) plan.fresh(clear)
  }

  async #takePartitions(turn: Turn, source: string): Promise<readonly number[]> {
    const { topicId, partitions } = turn.subscription
    const ownership = new Ownership(turn.state, partitions)
    ownership.giveUpSurplus()
    const taken = ownership.acquire(source, this.#parts.log.partitions(topicId))
    for (const partition of taken) await this.#parts.chains.advanceAll(turn, partition)
    return ownership.holding(source).active
  }

  async #toGrants(turn: Turn, found: readonly FoundMessages[]): Promise<Grant[]> {
    const grants: Grant[] = []
    for (const { planned, messages } of found) grants.push(await this.#toGrant(turn, planned, messages))
    return grants
  }

  async #toGrant(turn: Turn, { lease, row, bytes }: Planned, messages: readonly StoredMessage[]): Promise<Grant> {
    const takeover = turn.subscription.ordered ? await this.#announce(turn, lease.partition) : undefined
    return {
      lease: lease.id,
      partition: lease.partition,
      messages: row?.event ? [storedMessage(row.event, row.offset)] : messages,
      attempt: row?.attempt ?? 1,
      setAside: row !== undefined,
      crashes: lease.crashes,
      isolated: lease.isolated,
      failures: row?.failures ?? [],
      bytes,
      ...(takeover && { takeover }),
    }
  }

  /** The chains of the partition, if its owner has not been told of them. */
  async #announce(turn: Turn, partition: number): Promise<readonly KeyChain[] | undefined> {
    const owner = turn.state.owners.get(partition)
    if (!owner || owner.announced) return undefined
    owner.announced = true
    return this.#parts.chains.ofPartition(turn, partition)
  }

  #sharesOf(subscriptionId: number): LaneShares {
    const shares = this.#shares.get(subscriptionId) ?? new LaneShares()
    this.#shares.set(subscriptionId, shares)
    return shares
  }
}

/** Leases what one pull is given, and keeps count of what it may still be given. */
class Plan {
  readonly planned: Planned[] = []
  readonly #turn: Turn
  readonly #demand: Demand
  readonly #log: LogIndex
  readonly #shares: LaneShares
  readonly #allowance: Allowance

  constructor(turn: Turn, demand: Demand, log: LogIndex, shares: LaneShares) {
    this.#turn = turn
    this.#demand = demand
    this.#log = log
    this.#shares = shares
    this.#allowance = new Allowance(demand)
  }

  fresh(partitions: readonly number[]): void {
    const { state, subscription } = this.#turn
    for (const { partition, from, to } of planFresh(this.#turn, this.#log, this.#shares, partitions, this.#allowance)) {
      state.cursors.set(partition, to)
      this.#lease(partition, from, to, 0, this.#log.bytesOf(subscription.topicId, partition, from, to))
    }
  }

  /** The first that may go out now, of rows or else of ranges. */
  oneSuspect(rows: readonly Row[]): void {
    if (this.#allowance.isFull || !this.#allowance.suspectAllowed) return
    const row = rows.find(({ crashes }) => isSuspect(this.#turn, crashes))
    const range = this.#turn.state.returned.find(({ crashes }) => isSuspect(this.#turn, crashes))
    if (row) this.row(row)
    else if (range) this.returned(range)
  }

  /** Says whether it could go. */
  row(row: Row): boolean {
    if (this.#allowance.isFull || !this.#allows(row.crashes)) return false
    const { partition, offset, crashes, rowId } = row
    const bytes = this.#log.bytesOf(this.#turn.subscription.topicId, partition, offset, offset + 1)
    this.#lease(partition, offset, offset + 1, crashes, bytes, { rowId, row })
    return true
  }

  /** Leases as much of the front of a returned range as there is room for: of a suspect one, its first message. */
  returned(range: ReturnedRange): void {
    if (this.#allowance.isFull || !this.#allows(range.crashes)) return
    const { topicId } = this.#turn.subscription
    const { partition, crashes } = range
    const room = isSuspect(this.#turn, crashes) ? 1 : this.#allowance.messagesLeft
    const from = Math.max(range.from, Math.min(this.#log.firstOffset(topicId, partition), range.to))
    const end = Math.min(range.to, from + room)
    const to = from === end ? end : this.#log.reach(topicId, partition, from, end, this.#allowance.bytesLeft)
    this.#takeFront(range, to)
    if (to > from) this.#lease(partition, from, to, crashes, this.#log.bytesOf(topicId, partition, from, to))
  }

  /** Returns whether everything of the partition that had come back is out. */
  allReturned(partition: number): boolean {
    const { state } = this.#turn
    const first = () => state.returned.find((range) => range.partition === partition)
    for (let range = first(); range; range = first()) {
      if (this.#allowance.isFull || !this.#allows(range.crashes)) return false
      this.returned(range)
    }
    return true
  }

  #allows(crashes: number): boolean {
    return this.#allowance.suspectAllowed || !isSuspect(this.#turn, crashes)
  }

  #takeFront(range: ReturnedRange, to: number): void {
    const { state } = this.#turn
    const rest = to < range.to ? [{ ...range, from: to }] : []
    state.returned.splice(state.returned.indexOf(range), 1, ...rest)
  }

  #lease(
    partition: number,
    from: number,
    to: number,
    crashes: number,
    bytes: number,
    { rowId, row }: { rowId?: number; row?: Row } = {},
  ): void {
    const { source } = this.#demand
    const isolated = isSuspect(this.#turn, crashes)
    const kept = rowId === undefined ? {} : { rowId }
    const lease = this.#turn.state.lease({ source, partition, open: [from, to], crashes, isolated, ...kept })
    this.planned.push({ lease, bytes, ...(row && { row }) })
    this.#allowance.spend(lease, to - from, bytes)
  }
}

/** Behind one that cannot go yet, nothing of its key goes. */
function grantChains(plan: Plan, due: readonly Row[]): void {
  const held = new Set<string>()
  for (const row of due) {
    const isHeld = row.key !== undefined && held.has(row.key)
    if (!isHeld && plan.row(row)) continue
    if (row.key !== undefined) held.add(row.key)
  }
}

function isFreshFirst(turn: number): boolean {
  return turn % PULLS_BETWEEN_FRESH_FIRST === PULLS_BETWEEN_FRESH_FIRST - 1
}

function rotated(partitions: readonly number[], turn: number): readonly number[] {
  const start = partitions.length === 0 ? 0 : turn % partitions.length
  return [...partitions.slice(start), ...partitions.slice(0, start)]
}
