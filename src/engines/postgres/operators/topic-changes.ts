/**
 * Changes of a topic together with all of its subscriptions, each in one transaction: nothing is appended to the topic,
 * and nothing granted or settled of it, until the change is committed. The topic is locked before its subscriptions, so
 * that two changes never wait for each other. When the database fails, nothing was changed.
 */
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Transaction } from '../database/statement.ts'
import type { Turn, Turns } from '../delivery/turns.ts'
import { operators as sql } from '../sql/operators.ts'

export interface LockedTopic {
  readonly topicId: number
  readonly topic: string
}

export interface TopicChange {
  /** Carries out statements in the transaction. */
  readonly rows: Transaction
  readonly topic: LockedTopic
  /** One for each subscription of the topic. */
  readonly turns: readonly Turn[]
}

export class TopicChanges {
  readonly #database: Database
  readonly #turns: Turns

  constructor(database: Database, turns: Turns) {
    this.#database = database
    this.#turns = turns
  }

  /** Carries `work` out; it may be called again. Rejects with POSTHORN_TOPIC_NOT_FOUND. */
  async run<Value>(name: string, work: (change: TopicChange) => Promise<Value>): Promise<Value> {
    const effects: (() => void)[] = []
    const { value, saved } = await this.#database.transaction(async (rows) => {
      effects.length = 0
      const [topic] = await rows.rows<LockedTopic>(sql.lockTopic, name)
      if (!topic) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: name })
      const found = await rows.rows<{ subscriptionId: number }>(sql.subscriptionIds, topic.topicId)
      const ids = found.map(({ subscriptionId }) => subscriptionId)
      const opened = await this.#turns.open(rows, ids, effects)
      const value = await work({ rows, topic, turns: [...opened.values()] })
      return { value, saved: this.#turns.save(rows, opened.values()) }
    })
    this.#turns.remember(saved)
    for (const effect of effects) effect()
    return value
  }
}
