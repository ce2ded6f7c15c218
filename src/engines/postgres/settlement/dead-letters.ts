import type { DeadLetter, DeadLetterQuery, DeadReason, Failure, RedriveOptions } from '../../../engine.ts'
import { parseEvent } from '../../../message/decode.ts'
import { STEP_PROBLEM } from '../../step-problem.ts'
import type { Queryable } from '../database/statement.ts'
import type { SubscriptionKey, Turn } from '../delivery/turns.ts'
import { CHAIN_END, type ChainPlace, type Chains } from '../order/chains.ts'
import { deadLetters as sql } from '../sql/dead-letters.ts'
import type { Steps } from './steps.ts'

const MS_PER_SECOND = 1000

interface StoredDeadLetter {
  readonly id: number
  readonly partition: number
  readonly offset: number
  readonly reason: DeadReason
  readonly deadAtMs: number
  readonly blocking: boolean
  readonly attempts: number
  readonly crashes: number
  readonly failures: string
  readonly event: string | null
}

/** Messages of one key, or without one. */
interface Group {
  readonly partition: number
  readonly key: string | null
  readonly messages: number
}

/** Messages that are buried, until an operator redrives or deletes them. */
export class DeadLetters {
  readonly #chains: Chains
  readonly #steps: Steps

  constructor(chains: Chains, steps: Steps) {
    this.#chains = chains
    this.#steps = steps
  }

  /** Oldest first. */
  async page(rows: Queryable, key: SubscriptionKey, query: DeadLetterQuery): Promise<readonly DeadLetter[]> {
    const { afterId = 0, limit } = query
    const found = await rows.rows<StoredDeadLetter>(sql.page, key.subscriptionId, afterId, limit)
    const { topic, subscription } = key
    return found.map(({ failures, event, ...letter }) => ({
      topic,
      subscription,
      ...letter,
      failures: JSON.parse(failures) as Failure[],
      ...(event !== null && { event: parseEvent(event) }),
    }))
  }

  /** Gives dead letters another life, with their attempts counted afresh. What is behind one of its key waits for it. */
  async redrive(turn: Turn, { ids, perSecond }: RedriveOptions): Promise<number> {
    const { rows, subscription, state, nowMs } = turn
    const spacingMs = perSecond === undefined ? 0 : MS_PER_SECOND / perSecond
    const values = [subscription.subscriptionId, ids ?? null, nowMs, spacingMs, STEP_PROBLEM]
    const groups = await rows.rows<Group & { offset: number }>(sql.redrive, ...values)
    const redriven = messagesOf(groups)
    if (redriven === 0) return 0
    state.setAside += redriven
    state.due(nowMs)
    const firsts = groups.flatMap((group) => (group.key === null ? [] : [{ ...group, key: group.key }]))
    await Promise.all([this.#chains.holdBehind(turn, firsts), this.#chains.advanceTo(turn, headsOf(groups))])
    return redriven
  }

  /** Deletes some or all. Keys that they blocked go on. */
  async delete(turn: Turn, ids?: readonly number[]): Promise<number> {
    const { rows, subscription } = turn
    const groups = await rows.rows<Group>(sql.delete, subscription.subscriptionId, ids ?? null)
    await Promise.all([this.#chains.advanceTo(turn, headsOf(groups)), this.#steps.sweep(turn)])
    return messagesOf(groups)
  }

  /** Those of a partition from `offset` on block their key no longer. */
  async unblock({ rows, subscription }: Turn, partition: number, offset: number): Promise<void> {
    await rows.run(sql.unblock, subscription.subscriptionId, partition, offset)
  }
}

function messagesOf(groups: readonly Group[]): number {
  return groups.reduce((total, { messages }) => total + messages, 0)
}

function headsOf(groups: readonly Group[]): ChainPlace[] {
  return groups.flatMap(({ partition, key }) => (key === null ? [] : [{ partition, key, offset: CHAIN_END }]))
}
