import type { StartPosition, SubscriptionConfig } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Queryable } from '../database/statement.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import type { Turn } from '../delivery/turns.ts'
import { Chains } from '../order/chains.ts'
import * as sql from '../sql/topics.ts'
import { endsOf, locate } from './positions.ts'
import type { TopicRow, Topics, TopicsParts } from './topics.ts'

type Configured = Pick<SubscriptionConfig, 'ordered' | 'maxCrashes' | 'maxParked'>
type StoredSubscription = Configured & { readonly subscriptionId: number | null }

/** Makes the subscription exist, or gives it this configuration. */
export async function ensureSubscription(
  parts: TopicsParts,
  topics: Topics,
  config: SubscriptionConfig,
): Promise<void> {
  const { database } = parts
  const [found] = await database.rows<StoredSubscription>(
    sql.topics.findSubscription,
    config.topic,
    config.subscription,
  )
  if (!found) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: config.topic })
  const existing = found.subscriptionId ?? (await create(parts, topics, config))
  if (existing !== undefined && !isConfigured(found, config)) await reconfigure(parts, existing, config)
}

/** Returns its number if another process was first. The topic is locked, so nothing is published meanwhile. */
async function create(parts: TopicsParts, topics: Topics, config: SubscriptionConfig): Promise<number | undefined> {
  const { topicId } = await topics.find(config.topic)
  return parts.database.transaction(async (rows) => {
    const [topic] = await rows.rows<TopicRow>(sql.topics.lock, [topicId])
    if (!topic) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: config.topic })
    const values = [config.topic, config.subscription]
    const [stored] = await rows.rows<StoredSubscription>(sql.topics.findSubscription, ...values)
    if (stored && stored.subscriptionId !== null) return stored.subscriptionId
    await refuseSecondOfQueue(rows, topic, config)
    await insert(rows, topic, config, await startOffsets(parts, rows, topic, config.start))
    return undefined
  })
}

async function refuseSecondOfQueue(rows: Queryable, topic: TopicRow, config: SubscriptionConfig): Promise<void> {
  if (topic.kind !== 'queue') return
  const others = await rows.rows(sql.topics.anySubscription, topic.topicId)
  if (others.length === 0) return
  throw new PosthornError('POSTHORN_QUEUE_SUBSCRIPTION', { topic: config.topic, subscription: config.subscription })
}

/** What was published while nobody listened goes to the first subscription, whichever process starts first. */
async function startOffsets(
  { batches }: TopicsParts,
  rows: Queryable,
  { topicId, hadSubscription }: TopicRow,
  start: StartPosition = { at: hadSubscription ? 'latest' : 'earliest' },
): Promise<ReadonlyMap<number, number>> {
  const ends = await endsOf(rows, [topicId])
  const located = await locate(rows, batches, topicId, start)
  return new Map(ends.map(({ partition, nextOffset }) => [partition, located.get(partition) ?? nextOffset]))
}

async function insert(
  rows: Queryable,
  { topicId }: TopicRow,
  { subscription, ordered, maxCrashes, maxParked }: SubscriptionConfig,
  cursors: ReadonlyMap<number, number>,
): Promise<void> {
  const values = [topicId, subscription, ordered, maxCrashes, maxParked]
  const [inserted] = await rows.rows<{ subscriptionId: number }>(sql.topics.insertSubscription, ...values)
  const state = DeliveryState.startingAt(cursors).toText()
  await Promise.all([
    rows.run(sql.topics.firstState, inserted!.subscriptionId, state),
    rows.run(sql.topics.markHadSubscription, topicId),
  ])
}

async function reconfigure({ turns }: TopicsParts, subscriptionId: number, config: Configured): Promise<void> {
  await turns.across([subscriptionId], async ([turn], rows) => {
    if (!turn) return
    const { ordered, maxCrashes, maxParked } = config
    await rows.run(sql.topics.configureSubscription, subscriptionId, ordered, maxCrashes, maxParked)
    if (turn.subscription.ordered !== ordered) await changeOrder(turn, ordered)
  })
}

async function changeOrder(turn: Turn, ordered: boolean): Promise<void> {
  turn.state.owners.clear()
  if (!ordered) await new Chains().dissolve(turn)
}

function isConfigured(stored: Configured, wanted: Configured): boolean {
  return (['ordered', 'maxCrashes', 'maxParked'] as const).every((setting) => stored[setting] === wanted[setting])
}
