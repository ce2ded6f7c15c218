import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { endsOf, type PartitionEnds } from './positions.ts'

type Cursors = readonly (readonly [partition: number, offset: number])[]

interface Subscription {
  readonly topicId: number
  readonly cursors: Cursors
}

interface CancelledPlace {
  readonly topicId: number
  readonly partition: number
  readonly offset: number
}

/** Of each topic, the messages not yet handed to its slowest subscription; without subscriptions, all that are kept. */
export async function backlogsOf(rows: Queryable, topicIds: readonly number[]): Promise<ReadonlyMap<number, number>> {
  if (topicIds.length === 0) return new Map()
  const [ends, subscriptions, affected] = await Promise.all([
    endsOf(rows, topicIds),
    rows.rows<Subscription>(sql.log.cursors, topicIds),
    rows.rows<{ topicId: number }>(sql.log.withCancelled, topicIds),
  ])
  const cancelled = affected.length > 0 ? await cancelledOf(rows, affected, ends, subscriptions) : []
  return new Map(
    topicIds.map((topicId) => {
      const own = ends.filter((end) => end.topicId === topicId)
      const gone = cancelled.filter((place) => place.topicId === topicId)
      const cursors = subscriptions.filter((subscription) => subscription.topicId === topicId)
      const backlogs = cursors.map((subscription) => backlogOf(own, subscription.cursors, gone))
      return [topicId, backlogs.length > 0 ? Math.max(...backlogs) : backlogOf(own, [], [])]
    }),
  )
}

/** Those that no subscription has passed. */
function cancelledOf(
  rows: Queryable,
  affected: readonly { readonly topicId: number }[],
  ends: readonly PartitionEnds[],
  subscriptions: readonly Subscription[],
): Promise<CancelledPlace[]> {
  const wanted = affected.flatMap(({ topicId }) => {
    const passed = subscriptions.flatMap((each) => (each.topicId === topicId ? [new Map(each.cursors)] : []))
    return ends.flatMap(({ partition, firstOffset, ...end }) => {
      if (end.topicId !== topicId || passed.length === 0) return []
      const positions = passed.map((cursors) => cursors.get(partition) ?? 0)
      return { topicId, partition, from: Math.max(firstOffset, Math.min(...positions)) }
    })
  })
  return rows.rows<CancelledPlace>(
    sql.log.cancelledFrom,
    wanted.map(({ topicId }) => topicId),
    wanted.map(({ partition }) => partition),
    wanted.map(({ from }) => from),
  )
}

function backlogOf(ends: readonly PartitionEnds[], cursors: Cursors, cancelled: readonly CancelledPlace[]): number {
  const positions = new Map(cursors)
  const cancelledIn = Map.groupBy(cancelled, ({ partition }) => partition)
  return ends.reduce((total, { partition, firstOffset, nextOffset }) => {
    const position = Math.max(positions.get(partition) ?? 0, firstOffset)
    const gone = (cancelledIn.get(partition) ?? []).filter(({ offset }) => offset >= position)
    return total + nextOffset - position - gone.length
  }, 0)
}
