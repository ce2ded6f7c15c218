import type { Topic } from '../topic.ts'
import type { PartitionLog } from './log.ts'

/** Deletes what retention allows, batch by batch, oldest first. Returns how many messages. */
export function applyRetention(topic: Topic, nowMs: number): number {
  const { kind, retention } = topic.config
  let deleted = 0
  for (const [partition, log] of topic.logs) {
    const floor = retention.dropUnread ? log.nextOffset : settledUpTo(topic, partition)
    const isDone = kind === 'queue' ? settledUpTo(topic, partition) : 0
    deleted += deleteWhile(log, (end) => end <= isDone)
    deleted += deleteWhile(log, (end, lastTimeMs) => {
      const isOld = lastTimeMs < nowMs - retention.maxAgeMs
      return end <= floor && (isOld || topic.bytes() > (retention.maxBytes ?? Number.POSITIVE_INFINITY))
    })
  }
  return deleted
}

/** What every subscription is done with. A topic that has never had one keeps all for the first. */
function settledUpTo(topic: Topic, partition: number): number {
  if (!topic.hadSubscription) return 0
  const floors = Array.from(topic.subscriptions.values(), (subscription) => subscription.floor(partition))
  return Math.min(topic.log(partition).nextOffset, ...floors)
}

function deleteWhile(log: PartitionLog, isDeletable: (end: number, lastTimeMs: number) => boolean): number {
  let deleted = 0
  for (
    let batch = log.oldest;
    batch && isDeletable(batch.baseOffset + batch.count, batch.lastTimeMs);
    batch = log.oldest
  ) {
    deleted += log.deleteOldest()
  }
  return deleted
}
