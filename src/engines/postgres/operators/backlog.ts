import type { Queryable } from '../database/statement.ts'
import { inspection as sql } from '../sql/inspection.ts'
import type { PartitionRow } from './inspection.ts'

/** How far a subscription has come in one partition. */
export interface BacklogPart {
  readonly partition: number
  /** The first message that was not handed out and is to be. */
  readonly offset: number
  /** Messages not handed out, without those that are cancelled. */
  readonly backlog: number
  /** When the oldest of them was published; undefined when there is none. */
  readonly oldestMs: number | undefined
}

export interface Reader {
  readonly subscriptionId: number
  readonly topicId: number
  readonly cursors: ReadonlyMap<number, number>
}

interface Place {
  readonly subscriptionId: number
  readonly topicId: number
  readonly partition: number
  readonly offset: number
  readonly backlog: number
}

interface CancelledFrom {
  readonly topicId: number
  readonly partition: number
  readonly offset: number
  readonly cancelled: number
  readonly position: number
}

/** By subscription, what it has before it in each partition of its topic. */
export async function readBacklogs(
  rows: Queryable,
  readers: readonly Reader[],
  partitions: readonly PartitionRow[],
): Promise<ReadonlyMap<number, readonly BacklogPart[]>> {
  const places = await passOverCancelled(rows, placesOf(readers, partitions))
  const waiting = places.filter(({ backlog }) => backlog > 0)
  const numbers = waiting.map((_, number) => number)
  const published = await rows.rows<{ number: number; timeMs: number }>(sql.publishedAt, ...columns(waiting), numbers)
  const times = new Map(published.map(({ number, timeMs }) => [waiting[number], timeMs]))
  const parts = places.map((place) => ({ ...place, oldestMs: times.get(place) }))
  return Map.groupBy(parts, ({ subscriptionId }) => subscriptionId)
}

function placesOf(readers: readonly Reader[], partitions: readonly PartitionRow[]): Place[] {
  const byTopic = Map.groupBy(partitions, ({ topicId }) => topicId)
  return readers.flatMap(({ subscriptionId, topicId, cursors }) =>
    (byTopic.get(topicId) ?? []).map(({ partition, firstOffset, nextOffset }) => {
      const offset = Math.max(cursors.get(partition) ?? 0, firstOffset)
      return { subscriptionId, topicId, partition, offset, backlog: Math.max(0, nextOffset - offset) }
    }),
  )
}

async function passOverCancelled(rows: Queryable, places: readonly Place[]): Promise<Place[]> {
  const name = ({ topicId, partition, offset }: Pick<Place, 'topicId' | 'partition' | 'offset'>) =>
    `${topicId}/${partition}/${offset}`
  const waiting = new Map(places.filter(({ backlog }) => backlog > 0).map((place) => [name(place), place]))
  const found = await rows.rows<CancelledFrom>(sql.cancelledFrom, ...columns([...waiting.values()]))
  const cancelledFrom = new Map(found.map((row) => [name(row), row]))
  return places.map((place) => {
    const found = cancelledFrom.get(name(place))
    return found ? { ...place, offset: found.position, backlog: Math.max(0, place.backlog - found.cancelled) } : place
  })
}

function columns(places: readonly Place[]): [number[], number[], number[]] {
  return [
    places.map(({ topicId }) => topicId),
    places.map(({ partition }) => partition),
    places.map(({ offset }) => offset),
  ]
}
