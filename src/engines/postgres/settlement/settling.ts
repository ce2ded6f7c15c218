/**
 * Records what becomes of a subscription's leased messages, within its turn. The only way by which they end.
 *
 * Acknowledgements of messages that were never set aside change the state alone, and touch no table. For everything else,
 * the rows that are concerned are read by one statement, what is to be done is worked out message by message, as if one
 * were settled after the other, and `Changes` carries it out.
 */
import type { Failure, LeaseId, SettledException, Settlement } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import { toStoredText } from '../database/text.ts'
import { contains, type Lease } from '../delivery/lease.ts'
import type { Turn } from '../delivery/turns.ts'
import type { BatchReader } from '../log/batches.ts'
import type { Chains } from '../order/chains.ts'
import { settlement as sql } from '../sql/settlement.ts'
import {
  Changes,
  type Copy,
  type Death,
  type HeldMessage,
  keyOf,
  type LeasedRow,
  type MessagePlace,
} from './changes.ts'
import { eachRun, normalized, runsOf, subtract } from './runs.ts'
import type { Row } from './set-aside.ts'
import type { Steps } from './steps.ts'

type Rows = ReadonlyMap<number, LeasedRow>

export interface SettlingParts {
  readonly batches: Pick<BatchReader, 'read'>
  readonly chains: Chains
  readonly steps: Steps
}

export class Settling {
  readonly #parts: SettlingParts

  constructor(parts: SettlingParts) {
    this.#parts = parts
  }

  /** Returns the leases that are not the source's, or not any more: of those nothing was recorded. */
  async settle(turn: Turn, source: string, settlements: readonly Settlement[]): Promise<LeaseId[]> {
    const { state, subscription } = turn
    const needed = settlements.filter(({ exceptions }) => subscription.ordered || exceptions.length > 0)
    const rows = await this.#rowsOf(
      turn,
      needed.flatMap(({ lease }) => state.heldBy(source, lease) ?? []),
    )
    const changes = this.#changes(turn)
    const fenced: LeaseId[] = []
    for (const settlement of settlements) {
      const lease = state.heldBy(source, settlement.lease)
      if (lease) settleOne(turn, changes, rows, lease, settlement)
      else fenced.push(settlement.lease)
    }
    await this.#apply(turn, changes)
    return fenced
  }

  /** Gives back what is unsettled, with nothing counted. */
  async release(turn: Turn, leases: readonly Lease[]): Promise<void> {
    const changes = this.#changes(turn)
    for (const lease of leases) {
      turn.state.leases.delete(lease.id)
      giveBack(turn, changes, lease, lease.open, lease.crashes)
    }
    await this.#apply(turn, changes)
  }

  /** Gives back what a lost session had, its crashes counted; one that was isolated and did it too often is buried. */
  async lose(turn: Turn, leases: readonly Lease[]): Promise<void> {
    const isGuilty = (lease: Lease) => lease.isolated && lease.crashes + 1 >= turn.subscription.maxCrashes
    const rows = await this.#rowsOf(turn, leases.filter(isGuilty))
    const changes = this.#changes(turn)
    for (const lease of leases) {
      turn.state.leases.delete(lease.id)
      if (isGuilty(lease)) buryGuilty(turn, changes, rows, lease)
      else giveBack(turn, changes, lease, lease.open, lease.crashes + 1)
    }
    await this.#apply(turn, changes)
  }

  /** There is nothing left to deliver of these rows, which nobody holds any more: what waits behind them goes on. */
  async forgetRows(turn: Turn, rows: readonly Row[]): Promise<void> {
    const changes = this.#changes(turn)
    for (const { rowId, partition, key } of rows) changes.remove(partition, { rowId, key: keyOf(undefined, key) })
    await this.#apply(turn, changes)
  }

  /**
   * Ends a message wherever the subscription has it, and says what it was doing, if there was anything to end. `isFresh`:
   * it stands at or behind the cursor.
   */
  async cancel(turn: Turn, place: MessagePlace, isFresh: boolean): Promise<'waiting' | 'running' | undefined> {
    const { state, subscription, rows } = turn
    const { partition, offset } = place
    const wasHeld = takeFromLeases(turn, place)
    const wasReturned = takeFromReturned(turn, place)
    const values = [subscription.subscriptionId, partition, offset]
    const removed = await rows.rows<{ key: string | null }>(sql.removeAt, ...values)
    state.setAside -= removed.length
    const changes = this.#changes(turn)
    for (const { key } of removed) if (key !== null) changes.advance(partition, key)
    const wasThere = wasHeld || wasReturned || isFresh || removed.length > 0
    if (wasThere) changes.forgetSteps([place])
    await this.#apply(turn, changes)
    if (wasHeld) return 'running'
    return wasThere ? 'waiting' : undefined
  }

  #changes(turn: Turn): Changes {
    return new Changes(turn, this.#parts.chains, this.#parts.steps)
  }

  async #rowsOf({ rows }: Turn, leases: readonly Lease[]): Promise<Rows> {
    const rowIds = leases.flatMap(({ rowId }) => rowId ?? [])
    if (rowIds.length === 0) return new Map()
    const found = await rows.rows<LeasedRow>(sql.rows, rowIds)
    return new Map(found.map((row) => [row.rowId, row]))
  }

  async #apply(turn: Turn, changes: Changes): Promise<void> {
    await changes.apply(await this.#copies(turn, changes.deaths))
  }

  /** What the log has of the dead, unless their rows do. */
  async #copies({ rows, subscription: { topicId } }: Turn, deaths: readonly Death[]): Promise<(Copy | undefined)[]> {
    const copies: (Copy | undefined)[] = new Array(deaths.length)
    const places = [...deaths.keys()].filter((place) => deaths[place]!.message.row?.hasCopy !== true)
    if (places.length === 0) return copies
    const ranges = places.map((place) => {
      const { partition, offset } = deaths[place]!.message
      return { topicId, partition, from: offset, to: offset + 1 }
    })
    const { messages } = await this.#parts.batches.read(rows, ranges)
    for (const [range, place] of places.entries()) {
      const event = messages[range]?.[0]?.event
      if (event) copies[place] = { text: JSON.stringify(event), id: event.id }
    }
    return copies
  }
}

function settleOne(turn: Turn, changes: Changes, rows: Rows, lease: Lease, settlement: Settlement): void {
  const { acked, exceptions, stepped = [], freed = [] } = settlement
  const wasOpen = lease.open
  const done = normalized(acked)
  lease.open = subtract(wasOpen, done)
  const forgotten = stepped.filter((offset) => contains(done, offset) && contains(wasOpen, offset))
  changes.forgetSteps(forgotten.map((offset) => ({ partition: lease.partition, offset })))
  if (lease.rowId !== undefined && lease.open.length === 0 && wasOpen.length > 0) {
    changes.remove(lease.partition, { rowId: lease.rowId, key: rows.get(lease.rowId)?.key ?? null })
  }
  if (exceptions.length > 0) settleExceptions(turn, changes, rows, lease, exceptions)
  for (const key of freed) changes.advance(lease.partition, toStoredText(key))
  if (lease.open.length === 0) turn.state.leases.delete(lease.id)
}

/** Each offset once: the first settlement counts. */
function settleExceptions(
  turn: Turn,
  changes: Changes,
  rows: Rows,
  lease: Lease,
  exceptions: readonly SettledException[],
): void {
  const settled = new Set<number>()
  const released: number[] = []
  for (const exception of exceptions) {
    const { offset, kind } = exception
    if (settled.has(offset) || !contains(lease.open, offset)) continue
    settled.add(offset)
    if (kind === 'release') released.push(offset)
    else except(turn, changes, heldMessage(rows, lease, offset), exception)
  }
  lease.open = subtract(lease.open, runsOf([...settled]))
  giveBack(turn, changes, lease, runsOf(released), lease.crashes)
}

function except(
  { subscription: { ordered } }: Turn,
  changes: Changes,
  message: HeldMessage,
  exception: Exclude<SettledException, { kind: 'release' }>,
): void {
  const key = keyOf(message.row, exception.key)
  if (exception.kind === 'retry') {
    const { dueAtMs, failure } = exception
    changes.setAside(message, key, { for: 'time', dueAtMs }, failure)
  } else if (exception.kind === 'dead') {
    const { reason, failure, blocks = false } = exception
    const { crashes } = message
    changes.bury({ message, key, blocks: blocks && ordered && key !== null, reason, crashes, failure })
  } else if (typeof exception.until === 'number') {
    changes.setAside(message, key, { for: 'time', dueAtMs: exception.until })
  } else if (!ordered || key === null) {
    // There is nothing to wait for, and nobody to say that it is over.
    changes.setAside(message, key, { for: 'grant' })
  } else {
    changes.setAside(message, key, { for: exception.until === 'freed' ? 'turn' : 'turn unless alone' })
  }
}

/** Puts messages of a lease back, at the head of what waits. */
function giveBack(turn: Turn, changes: Changes, lease: Lease, ranges: readonly number[], crashes: number): void {
  const { rowId, partition } = lease
  eachRun(ranges, (from, to) => {
    if (rowId === undefined) turn.state.giveBack({ partition, from, to, crashes })
    else changes.giveBack({ rowId }, crashes)
  })
}

function buryGuilty(turn: Turn, changes: Changes, rows: Rows, lease: Lease): void {
  const crashes = lease.crashes + 1
  const { name, code, message: text } = new PosthornError('POSTHORN_CRASHED_REPEATEDLY', { crashes })
  eachRun(lease.open, (offset) => {
    const message = heldMessage(rows, lease, offset)
    const failure: Failure = { attempt: message.row?.attempt ?? 1, atMs: turn.nowMs, name, code, message: text }
    changes.bury({ message, key: keyOf(message.row, undefined), blocks: false, reason: 'crashed', crashes, failure })
  })
}

function heldMessage(rows: Rows, lease: Lease, offset: number): HeldMessage {
  const { id, partition, crashes, rowId } = lease
  return { lease: id, partition, offset, crashes, row: rowId === undefined ? undefined : rows.get(rowId) }
}

/** Says whether anybody held it. */
function takeFromLeases({ state }: Turn, { partition, offset }: MessagePlace): boolean {
  const holding = [...state.leases.values()].filter(
    (lease) => lease.partition === partition && contains(lease.open, offset),
  )
  for (const lease of holding) {
    lease.open = subtract(lease.open, [offset, offset + 1])
    if (lease.open.length === 0) state.leases.delete(lease.id)
  }
  return holding.length > 0
}

/** Says whether it had come back. */
function takeFromReturned({ state }: Turn, { partition, offset }: MessagePlace): boolean {
  const place = state.returned.findIndex(
    (range) => range.partition === partition && range.from <= offset && offset < range.to,
  )
  const range = state.returned[place]
  if (!range) return false
  const rests = [
    { ...range, to: offset },
    { ...range, from: offset + 1 },
  ].filter(({ from, to }) => from < to)
  state.returned.splice(place, 1, ...rests)
  return true
}
