import type { AppendGroup, AppendReceipt, NewMessage } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import { partitionOfKey } from '../../../message/partition.ts'
import type { MemoryStore } from '../store.ts'
import type { Topic } from '../topic.ts'

/** Stores one group and says where. Throws, before anything is stored, when the topic's backlog is full. */
export function appendGroup(topic: Topic, group: AppendGroup, nowMs: number): AppendReceipt[] {
  refuseFullBacklog(topic)
  const receipts: AppendReceipt[] = new Array(group.messages.length)
  const ready = new Map<number, number[]>()
  const keyless = topic.rotate()
  for (const [place, message] of group.messages.entries()) {
    const partition = partitionOf(topic, message, keyless)
    if (message.deduplicate && !topic.rememberId(message.id, nowMs)) receipts[place] = { duplicate: true }
    else if (isDelayed(message, nowMs)) receipts[place] = delay(topic, group.shared, message, partition)
    else addTo(ready, partition, place)
  }
  for (const [partition, places] of ready) storeRun(topic, group, partition, places, receipts)
  return receipts
}

/** Throws if one of the groups would be refused. */
export function checkAll(store: MemoryStore, groups: readonly AppendGroup[]): void {
  for (const { topic } of groups) refuseFullBacklog(store.topic(topic))
}

function partitionOf(topic: Topic, { key, priority }: NewMessage, keyless: number): number {
  return topic.partitionIn(
    priority ?? 'normal',
    key === undefined ? keyless : partitionOfKey(key, topic.config.partitions),
  )
}

type DelayedMessage = NewMessage & { readonly deliverAtMs: number }

function isDelayed(message: NewMessage, nowMs: number): message is DelayedMessage {
  return message.deliverAtMs !== undefined && message.deliverAtMs > nowMs
}

function delay(topic: Topic, shared: string, message: DelayedMessage, partition: number): AppendReceipt {
  const { id, json, timeMs, deliverAtMs } = message
  topic.delay({ id, partition, deliverAtMs, timeMs, shared, json })
  return { duplicate: false }
}

function storeRun(
  topic: Topic,
  group: AppendGroup,
  partition: number,
  places: readonly number[],
  receipts: AppendReceipt[],
): void {
  const entries = places.map((place) => group.messages[place]!)
  const baseOffset = topic.log(partition).append(group.shared, entries)
  for (const [step, place] of places.entries()) {
    receipts[place] = { duplicate: false, partition, offset: baseOffset + step }
  }
}

function addTo(ready: Map<number, number[]>, partition: number, place: number): void {
  const places = ready.get(partition)
  if (places) places.push(place)
  else ready.set(partition, [place])
}

function refuseFullBacklog(topic: Topic): void {
  const limit = topic.config.maxBacklog
  if (limit === undefined) return
  const backlog = topic.backlog()
  if (backlog >= limit) throw new PosthornError('POSTHORN_BACKLOG_FULL', { topic: topic.name, backlog, limit })
}
