/**
 * What was set aside of one key of an ordered subscription: the rows of its chain, in offset order.
 *
 * Invariant: of a chain only rows at its head are due, or in somebody's hands. A row behind waits, `parked`, until the
 * one before it is settled for good; then the next `WAKE_MAX` become due together, and their owner runs them one after
 * the other. When one of them fails, those behind it that nobody holds are parked again; those that its owner holds, it
 * parks itself. A dead letter that blocks its key stands before the whole chain.
 */
import * as sql from '../../sql/chains.ts'
import { PARKED } from '../../sql/chains.ts'
import type { Statements } from '../file/connection.ts'

/** Enough for a round trip to be worth it, and few enough to be parked again when the first of them fails. */
const WAKE_MAX = 64

export interface KeyPlace {
  readonly subscriptionId: number
  readonly partition: number
  readonly key: string
}

interface FirstRow {
  readonly parked: number
  readonly offset: number
}

export class Chains {
  readonly #statements: Statements

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** Whether the message at `offset` has to wait for something that was set aside before it. */
  hasPredecessor({ subscriptionId, partition, key }: KeyPlace, offset: number): boolean {
    return this.#statements.get(sql.HAS_PREDECESSOR, subscriptionId, partition, key, offset) !== undefined
  }

  /** The first of the chain is gone: those next to it are due. */
  advance({ subscriptionId, partition, key }: KeyPlace, nowMs: number): void {
    const first = this.#statements.get<FirstRow>(sql.FIRST_OF_CHAIN, subscriptionId, partition, key)
    if (!first || first.parked === PARKED.not || first.parked === PARKED.untilTime) return
    const blocker = this.#statements.get(sql.FIND_BLOCKER, subscriptionId, partition, key, first.offset)
    if (blocker !== undefined) return
    this.#statements.run(sql.WAKE_CHAIN, subscriptionId, partition, key, nowMs, WAKE_MAX)
  }

  /** The message at `offset` is to be delivered again: what is behind it waits. */
  holdBehind({ subscriptionId, partition, key }: KeyPlace, offset: number): void {
    this.#statements.run(sql.PARK_BEHIND, subscriptionId, partition, key, offset)
  }

  /** The partition has a new owner, or its dead letters block no longer. */
  wakeFirsts(subscriptionId: number, partition: number, nowMs: number): void {
    this.#statements.run(sql.WAKE_FIRSTS, subscriptionId, partition, nowMs)
  }

  unblockFrom(subscriptionId: number, partition: number, offset: number): void {
    this.#statements.run(sql.UNBLOCK_FROM_OFFSET, subscriptionId, partition, offset)
  }
}
