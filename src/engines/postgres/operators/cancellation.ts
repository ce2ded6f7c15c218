/**
 * Stopping single messages.
 *
 * A message is stopped wherever it is: a delayed one is deleted; in leases and returned ranges it is settled; its rows are
 * deleted, and what waited behind them goes on. And it is written down as *cancelled* with the same commit: granting
 * passes over it, today's subscriptions and later ones alike, and a source that finds it gone from its leases knows from
 * there that it was not lost. So nobody has to be reached for that, and no notice can be missed: the source looks when it
 * is woken, and with its next turn at the latest.
 */
import type { CancelOutcome } from '../../../engine.ts'
import type { Database } from '../database/database.ts'
import type { Turn } from '../delivery/turns.ts'
import { idHash } from '../log/id-hash.ts'
import { endsOf } from '../log/positions.ts'
import type { Topics } from '../log/topics.ts'
import type { Settling } from '../settlement/settling.ts'
import { cancellation as sql } from '../sql/cancellation.ts'
import type { MessagePlace, MessageSearch } from './message-search.ts'
import type { Touched } from './removal.ts'
import type { TopicChange, TopicChanges } from './topic-changes.ts'

export interface CancellationParts {
  readonly database: Database
  readonly topics: Topics
  readonly search: MessageSearch
  readonly changes: TopicChanges
  readonly settling: Settling
}

export interface Cancelled extends Touched {
  readonly outcome: CancelOutcome
}

const NOTHING: CancelOutcome = { delayed: 0, waiting: 0, running: 0 }

export class Cancellation {
  readonly #parts: CancellationParts

  constructor(parts: CancellationParts) {
    this.#parts = parts
  }

  /** Stops the message with this id. Rejects with POSTHORN_TOPIC_NOT_FOUND. */
  async cancel(topic: string, id: string): Promise<Cancelled> {
    const { database, topics, search, changes } = this.#parts
    const { topicId } = await topics.find(topic)
    const untouched = { topicId, subscriptionIds: [], outcome: NOTHING }
    const delayed = await database.run(sql.deleteDelayed, topicId, idHash(id))
    if (delayed > 0) return { ...untouched, outcome: { ...NOTHING, delayed } }
    const place = await search.find(topicId, id)
    if (!place) return untouched
    return changes.run(topic, async (change) => {
      // A topic of the same name may have been made anew.
      return change.topic.topicId === topicId ? this.#stop(change, place) : untouched
    })
  }

  async #stop({ rows, topic: { topicId }, turns }: TopicChange, place: MessagePlace): Promise<Cancelled> {
    const { partition, offset } = place
    const [ends, cancelled] = await Promise.all([
      endsOf(rows, [topicId]),
      rows.rows(sql.isCancelled, topicId, partition, offset),
    ])
    // It may have been deleted since it was found.
    const firstOffset = ends.find((end) => end.partition === partition)?.firstOffset ?? Number.POSITIVE_INFINITY
    const isNew = cancelled.length === 0 && offset >= firstOffset
    const stopped = await Promise.all(turns.map((turn) => this.#stopIn(turn, place, isNew)))
    const running = stopped.filter((was) => was === 'running').length
    // What nobody has subscribed to waits for the first who does.
    const waiting = turns.length === 0 ? Number(isNew) : stopped.filter((was) => was === 'waiting').length
    if (waiting + running > 0) {
      await Promise.all([rows.run(sql.cancel, topicId, partition, offset), rows.run(sql.noteCancelled, topicId)])
    }
    const subscriptionIds = turns.map(({ subscription }) => subscription.subscriptionId)
    return { topicId, subscriptionIds, outcome: { delayed: 0, waiting, running } }
  }

  #stopIn(turn: Turn, place: MessagePlace, isNew: boolean): Promise<'waiting' | 'running' | undefined> {
    const isFresh = isNew && place.offset >= (turn.state.cursors.get(place.partition) ?? 0)
    return this.#parts.settling.cancel(turn, place, isFresh)
  }
}
