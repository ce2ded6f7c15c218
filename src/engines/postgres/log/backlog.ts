import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { endsOf, type PartitionEnds } from './positions.ts'

type Cursors = readonly (readonly [partition: number, offset: number])[]

interface CancelledPlace {
  readonly topicId: number
  readonly partition: number
  readonly offset: number
}

/** Of each topic, the messages not yet handed to its slowest subscription; without subscriptions, all that are kept. */
export async function backlogsOf(rows: Queryable, topicIds: readonly number[]): Promise<ReadonlyMap<number, number>> {
  if (topicIds.length === 0) return new Map()
  const [ends, subscriptions, cancelled] = await Promise.all([
    endsOf(rows, topicIds),
    rows.rows<{ topicId: number; cursors: Cursors }>(sql.log.cursors, topicIds),
    rows.rows<CancelledPlace>(sql.log.cancelled, topicIds),
  ])
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

function backlogOf(ends: readonly PartitionEnds[], cursors: Cursors, cancelled: readonly CancelledPlace[]): number {
  const positions = new Map(cursors)
  return ends.reduce((total, { partition, firstOffset, nextOffset }) => {
    const position = Math.max(positions.get(partition) ?? 0, firstOffset)
    const gone = cancelled.filter((place) => place.partition === partition && place.offset >= position)
    return total + nextOffset - position - gone.length
  }, 0)
}
