/** What operators see of topics, subscriptions and consumers. Changes nothing, and locks nothing. */
import type { ConsumerState, PartitionState, SubscriptionRef, SubscriptionState, TopicState } from '../../../engine.ts'
import { LANES } from '../../lane-shares.ts'
import { sessionOf } from '../consumers/source-name.ts'
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import { messagesIn } from '../delivery/lease.ts'
import type { Breakers } from '../limits/breakers.ts'
import { inspection as sql } from '../sql/inspection.ts'
import { type BacklogPart, readBacklogs } from './backlog.ts'
import { readOneMoment } from './one-moment.ts'

export interface PartitionRow extends Omit<PartitionState, 'priority'> {
  readonly topicId: number
}

interface TopicRow extends Omit<TopicState, 'partitions' | 'messages'> {
  readonly topicId: number
  readonly partitionsOfLane: number
}

interface SubscriptionCounts extends SubscriptionRef {
  readonly subscriptionId: number
  readonly topicId: number
  readonly paused: boolean
  readonly state: string
  readonly deadLetters: number
  readonly blockedKeys: number
}

interface StatusCount {
  readonly subscriptionId: number
  readonly status: 'retrying' | 'returned' | 'parked'
  readonly messages: number
}

/** What several statements have found about all subscriptions that were asked for. */
interface Findings {
  readonly nowMs: number
  readonly backlogs: ReadonlyMap<number, readonly BacklogPart[]>
  readonly setAside: ReadonlyMap<number, readonly StatusCount[]>
  readonly breakers: ReadonlyMap<number, SubscriptionState['breakers']>
}

export function readTopics(database: Database): Promise<TopicState[]> {
  return readOneMoment(database, async (rows) => {
    const [topics, partitions] = await Promise.all([
      rows.rows<TopicRow>(sql.topics),
      rows.rows<PartitionRow>(sql.partitions, null),
    ])
    const byTopic = Map.groupBy(partitions, ({ topicId }) => topicId)
    return topics.map((topic) => topicState(topic, byTopic.get(topic.topicId) ?? []))
  })
}

function topicState({ topicId: _, partitionsOfLane, ...topic }: TopicRow, partitions: readonly PartitionRow[]) {
  return {
    ...topic,
    messages: partitions.reduce((total, { firstOffset, nextOffset }) => total + nextOffset - firstOffset, 0),
    partitions: partitions.map(({ partition, firstOffset, nextOffset }) => {
      return { partition, priority: LANES[Math.floor(partition / partitionsOfLane)]!, firstOffset, nextOffset }
    }),
  }
}

/** All subscriptions, or those of one topic. */
export function readSubscriptions(
  database: Database,
  breakers: Breakers,
  topicId: number | undefined,
  nowMs: number,
): Promise<SubscriptionState[]> {
  return readOneMoment(database, async (rows) => {
    const [counts, partitions] = await Promise.all([
      rows.rows<SubscriptionCounts>(sql.subscriptions, topicId ?? null),
      rows.rows<PartitionRow>(sql.partitions, topicId ?? null),
    ])
    const found = counts.map((row) => ({ row, state: DeliveryState.parse(row.state) }))
    const ids = counts.map(({ subscriptionId }) => subscriptionId)
    const leasedRows = found.flatMap(({ state }) => state.leasedRows())
    const [backlogs, setAside, notClosed] = await Promise.all([
      readBacklogs(
        rows,
        found.map(({ row, state }) => ({ ...row, cursors: state.cursors })),
        partitions,
      ),
      rows.rows<StatusCount>(sql.setAside, ids, leasedRows),
      breakers.list(rows, ids),
    ])
    const setAsideIn = Map.groupBy(setAside, ({ subscriptionId }) => subscriptionId)
    const findings = { nowMs, backlogs, setAside: setAsideIn, breakers: notClosed }
    return found.map(({ row, state }) => subscriptionState(row, state, findings))
  })
}

function subscriptionState(row: SubscriptionCounts, state: DeliveryState, findings: Findings): SubscriptionState {
  const { subscriptionId, topic, subscription, paused, deadLetters, blockedKeys } = row
  const parts = findings.backlogs.get(subscriptionId) ?? []
  const setAside = findings.setAside.get(subscriptionId) ?? []
  const waiting = (status: StatusCount['status']) => setAside.find((count) => count.status === status)?.messages ?? 0
  return {
    topic,
    subscription,
    paused,
    backlog: parts.reduce((total, { backlog }) => total + backlog, 0),
    lagMs: parts.reduce((lag, { oldestMs }) => Math.max(lag, findings.nowMs - (oldestMs ?? findings.nowMs)), 0),
    leased: [...state.leases.values()].reduce((total, { open }) => total + messagesIn(open), 0),
    retrying: waiting('retrying'),
    returned: waiting('returned') + state.returned.reduce((total, { from, to }) => total + to - from, 0),
    parked: waiting('parked'),
    blockedKeys,
    breakers: findings.breakers.get(subscriptionId) ?? [],
    deadLetters,
    positions: parts.map(({ partition, offset }) => ({ partition, offset })),
  }
}

export async function readConsumers(database: Database): Promise<ConsumerState[]> {
  return readOneMoment(database, async (rows) => {
    const [sessions, open] = await Promise.all([
      rows.rows<Omit<ConsumerState, 'subscriptions'>>(sql.consumers),
      readOpenSources(rows),
    ])
    return sessions.map((session) => ({ ...session, subscriptions: open.get(session.id) ?? [] }))
  })
}

/** The subscriptions of the open sources of each session. */
async function readOpenSources(rows: Queryable): Promise<Map<string, SubscriptionRef[]>> {
  const open = new Map<string, SubscriptionRef[]>()
  for (const { topic, subscription, state } of await rows.rows<SubscriptionRef & { state: string }>(sql.states, null)) {
    for (const source of DeliveryState.parse(state).sources) {
      const session = sessionOf(source)
      const subscriptions = open.get(session) ?? []
      open.set(session, subscriptions)
      subscriptions.push({ topic, subscription })
    }
  }
  return open
}
