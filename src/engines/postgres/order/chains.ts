/**
 * What was set aside of one key of an ordered subscription: the rows of its chain, in offset order.
 *
 * A row waits for its turn until the one before it is settled for good; then the first `PROMOTED_MAX` that wait for their
 * turn are let go together, up to one that has a time of its own. When one of those fails, those behind it that nobody
 * holds wait for their turn again; those that its owner holds, the owner sets aside itself. A dead letter that blocks its
 * key stands before the whole chain.
 *
 * Invariant: a row is granted only when no row before it in its chain waits, and one with a time of its own only when
 * there is none before it at all; whatever order releases, lost sessions and redriven dead letters bring them back in.
 *
 * State: none but the rows. All is done for many keys at once, by one statement, within the turn of its subscription. A
 * subscription without order has no chains: nothing in it waits for its turn.
 */
import type { KeyChain } from '../../../engine.ts'
import { fromStoredText, toStoredText } from '../database/text.ts'
import type { Turn } from '../delivery/turns.ts'
import { chains as sql } from '../sql/chains.ts'

/** Enough for a round trip to be worth it, and few enough to be held again when the first of them fails. */
const PROMOTED_MAX = 64

export interface ChainPlace {
  readonly partition: number
  /** As it is stored. */
  readonly key: string
  readonly offset: number
}

/** Before everything that a chain may hold. */
export const CHAIN_START = -1
export const CHAIN_END = Number.MAX_SAFE_INTEGER

export class Chains {
  /** Lets the first rows of the chains of these keys go, as far as they wait for nothing but their turn. */
  advance(turn: Turn, partition: number, keys: readonly string[]): Promise<void> {
    const heads = keys.map((key) => ({ partition, key: toStoredText(key), offset: CHAIN_END }))
    return this.advanceTo(turn, heads)
  }

  /** The same, as far as they stand before an offset. */
  async advanceTo(turn: Turn, chains: readonly ChainPlace[]): Promise<void> {
    const { rows, subscription, nowMs, state } = turn
    if (!subscription.ordered || chains.length === 0) return
    const values = [subscription.subscriptionId, nowMs, ...columns(chains), PROMOTED_MAX, state.leasedRows()]
    noteDue(turn, await rows.run(sql.advance, ...values))
  }

  /** The partition has a new owner, or a position before its chains: what waited for an earlier owner's word is due. */
  async advanceAll(turn: Turn, partition: number): Promise<void> {
    const { rows, subscription, nowMs, state } = turn
    if (!subscription.ordered || state.setAside === 0) return
    const values = [subscription.subscriptionId, nowMs, partition, PROMOTED_MAX, state.leasedRows()]
    noteDue(turn, await rows.run(sql.advanceAll, ...values))
  }

  /** Messages at these places are to come first: what is behind them waits for its turn. */
  async holdBehind({ rows, subscription, state }: Turn, places: readonly ChainPlace[]): Promise<void> {
    if (!subscription.ordered || places.length === 0) return
    await rows.run(sql.holdBehind, subscription.subscriptionId, ...columns(places), state.leasedRows())
  }

  /** Rows that nobody holds any more wait for their turn again, where something before them does not come first now. */
  async holdReturned({ rows, subscription, state }: Turn, rowIds: readonly number[]): Promise<void> {
    if (!subscription.ordered || rowIds.length === 0) return
    await rows.run(sql.holdReturned, subscription.subscriptionId, rowIds, state.leasedRows())
  }

  /** Of rows that wait for their turn, those that are alone with their key are due. */
  async letLoneGo(turn: Turn, places: readonly Omit<ChainPlace, 'key'>[]): Promise<void> {
    if (places.length === 0) return
    const partitions = places.map(({ partition }) => partition)
    const offsets = places.map(({ offset }) => offset)
    const values = [turn.subscription.subscriptionId, turn.nowMs, partitions, offsets]
    noteDue(turn, await turn.rows.run(sql.letLoneGo, ...values))
  }

  /** There is no order any more: every row is due that waited for its turn. */
  async dissolve(turn: Turn): Promise<void> {
    noteDue(turn, await turn.rows.run(sql.dissolve, turn.subscription.subscriptionId, turn.nowMs))
  }

  /** What a new owner has to know: the keys of which something was set aside, or that are blocked. */
  async ofPartition({ rows, subscription }: Turn, partition: number): Promise<KeyChain[]> {
    const found = await rows.rows<KeyChain>(sql.ofPartition, subscription.subscriptionId, partition)
    return found.map((chain) => ({ ...chain, key: fromStoredText(chain.key) }))
  }
}

function columns(places: readonly ChainPlace[]): [number[], string[], number[]] {
  return [places.map(({ partition }) => partition), places.map(({ key }) => key), places.map(({ offset }) => offset)]
}

function noteDue({ state, nowMs }: Turn, rows: number): void {
  if (rows > 0) state.due(nowMs)
}
