import type { CancelOutcome } from '../../../engine.ts'
import { applyRetention } from '../log/retention.ts'
import { Settling } from '../settlement/settlement.ts'
import type { MemoryStore } from '../store.ts'
import type { MessagePlace } from '../subscription.ts'
import type { Topic } from '../topic.ts'

interface Found {
  readonly place: MessagePlace
  readonly timeMs: number
}

const NOTHING: CancelOutcome = { delayed: 0, waiting: 0, running: 0 }

/** Stops the message with this id wherever it is: before its time, in the log, or in the hands of subscriptions. */
export function cancel(store: MemoryStore, topic: Topic, id: string, nowMs: number): CancelOutcome {
  if (topic.cancelDelayed(id)) return { ...NOTHING, delayed: 1 }
  const place = find(store, topic, id)
  const log = place && topic.log(place.partition)
  if (!place || log?.isCancelled(place.offset)) return NOTHING
  const ends = Array.from(topic.subscriptions.values(), (subscription) => {
    return new Settling(store, subscription, nowMs).cancel(place)
  })
  const running = ends.filter((end) => end === 'running').length
  // What nobody has subscribed to waits for the first who does.
  const waiting = ends.length === 0 ? 1 : ends.filter((end) => end === 'waiting').length
  if (waiting + running > 0) log?.cancel(place.offset)
  if (topic.config.kind === 'queue') applyRetention(topic, nowMs)
  store.waiters.wakeAll()
  return { delayed: 0, waiting, running }
}

/** The youngest one, if the id was used again after the deduplication window. */
function find(store: MemoryStore, topic: Topic, id: string): MessagePlace | undefined {
  const found = [...findCopies(topic, id), ...findInLog(store, topic, id)]
  return found.toSorted((one, other) => one.timeMs - other.timeMs).at(-1)?.place
}

function* findInLog(store: MemoryStore, topic: Topic, id: string): Generator<Found> {
  const text = JSON.stringify(id)
  for (const [partition, log] of topic.logs) {
    for (const { data, baseOffset, count } of log.batches(log.firstOffset, log.nextOffset)) {
      if (!data.includes(text)) continue
      for (const { event, offset } of store.decoded.read(log, baseOffset, baseOffset + count)) {
        if (event.id === id) yield { place: { partition, offset }, timeMs: Date.parse(event.time) }
      }
    }
  }
}

/** Redriven messages may have outlived the log. */
function* findCopies(topic: Topic, id: string): Generator<Found> {
  for (const { rows } of topic.subscriptions.values()) {
    for (const row of rows) {
      const { event } = row.history
      if (event?.id === id) yield { place: row, timeMs: Date.parse(event.time) }
    }
  }
}
