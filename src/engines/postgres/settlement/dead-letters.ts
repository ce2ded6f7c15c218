import type { DeadLetter, DeadLetterQuery, DeadReason, Failure } from '../../../engine.ts'
import { parseEvent } from '../../../message/decode.ts'
import { STEP_PROBLEM } from '../../step-problem.ts'
import type { Queryable } from '../database/statement.ts'
import type { SubscriptionKey, Turn } from '../delivery/turns.ts'
import { CHAIN_END, type ChainPlace, type Chains } from '../order/chains.ts'
import { deadLetters as sql } from '../sql/dead-letters.ts'
import type { MessagePlace } from './changes.ts'
import type { Steps } from './steps.ts'

/** What one transaction changes: others wait for it. */
const AT_ONCE = 1_000

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
}

export interface Redrive {
  readonly ids: readonly number[]
  /** From one to the next. */
  readonly spacingMs?: number
  /** When the first is due. */
  readonly fromMs?: number
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

  /**
   * The ids of all that there are now, some at a time: those that die meanwhile are not among them. In the order of their
   * places, so that of one key none comes before what was published before it.
   */
  async *all(rows: Queryable, { subscriptionId }: SubscriptionKey): AsyncGenerator<readonly number[]> {
    const [newest] = await rows.rows<{ id: number }>(sql.newest, subscriptionId)
    for (let place = [-1, -1, -1]; ; ) {
      const some = await rows.rows<MessagePlace & { id: number }>(
        sql.some,
        subscriptionId,
        ...place,
        newest!.id,
        AT_ONCE,
      )
      const last = some.at(-1)
      if (!last) return
      yield some.map(({ id }) => id)
      place = [last.partition, last.offset, last.id]
    }
  }

  /**
   * Gives dead letters another life, with their attempts counted afresh, from a time on. What is behind one of its key
   * waits for it.
   */
  async redrive(turn: Turn, { ids, spacingMs = 0, fromMs = turn.nowMs }: Redrive): Promise<number> {
    const { rows, subscription, state } = turn
    const values = [subscription.subscriptionId, ids, fromMs, spacingMs, STEP_PROBLEM]
    const groups = await rows.rows<Group & { offset: number; messages: number }>(sql.redrive, ...values)
    const redriven = groups.reduce((total, { messages }) => total + messages, 0)
    if (redriven === 0) return 0
    state.setAside += redriven
    state.due(fromMs)
    const firsts = groups.flatMap((group) => (group.key === null ? [] : [{ ...group, key: group.key }]))
    await Promise.all([this.#chains.holdBehind(turn, firsts), this.#chains.advanceTo(turn, headsOf(groups))])
    return redriven
  }

  /** Keys that they blocked go on. */
  async delete(turn: Turn, ids: readonly number[]): Promise<number> {
    const { rows, subscription } = turn
    const deleted = await rows.rows<Group & MessagePlace>(sql.delete, subscription.subscriptionId, ids)
    await Promise.all([this.#chains.advanceTo(turn, headsOf(deleted)), this.#steps.sweepPlaces(turn, deleted)])
    return deleted.length
  }

  /** Those of a partition from `offset` on block their key no longer. */
  async unblock({ rows, subscription }: Turn, partition: number, offset: number): Promise<void> {
    await rows.run(sql.unblock, subscription.subscriptionId, partition, offset)
  }
}

function headsOf(groups: readonly Group[]): ChainPlace[] {
  return groups.flatMap(({ partition, key }) => (key === null ? [] : [{ partition, key, offset: CHAIN_END }]))
}
