/**
 * When messages over their bucket's limit fill the waiting room, so that those of other buckets cannot even be fetched:
 * which of them are to wait in the store instead, and for how long.
 */
import type { Item } from '../fetching/supply.ts'
import type { SupplyHost } from '../fetching/supply-line.ts'
import type { ConfiguredLimit } from '../settings.ts'
import type { Bucket } from './bucket.ts'
import type { WaitingRoom } from './waiting-room.ts'

type MakeRoomHost = Pick<SupplyHost, 'settings' | 'environment' | 'pace' | 'park'>

/** What will start within this time anyway is not worth a row in the store. */
const WORTH_MS = 1_000
/** Others may leave, limits may change: nobody waits for longer without being looked at again. */
const WAIT_MS_MAX = 60_000
/** How long handlers are taken to run before one has ended. */
const DURATION_MS_UNKNOWN = 1_000

/** As `setAside`, at the pace at which messages of a bucket start, and until a time of the wall clock. */
export function makeRoom(room: WaitingRoom, { settings, environment, pace, park }: MakeRoomHost): boolean {
  const { averageMs } = pace()
  const intervalMs = Math.max(startIntervalMs(settings.limits, averageMs), averageMs / settings.concurrency)
  const timeMs = environment.clock.now()
  return setAside(room, intervalMs, environment.clock.elapsedMs(), (item, waitMs) => park(item, timeMs + waitMs))
}

/** Takes the last messages out of the largest buckets until half of the room is free, or the rest has not long to wait. */
function setAside(
  room: WaitingRoom,
  intervalMs: number,
  nowMs: number,
  park: (item: Item, waitMs: number) => void,
): boolean {
  const before = room.waiting
  const largestFirst = room.buckets().toSorted((one, other) => other.waiting.length - one.waiting.length)
  for (const bucket of largestFirst) {
    if (room.roomy) break
    const excess = excessOf(bucket, intervalMs, nowMs)
    // Room may be short of bytes with few messages in it.
    const items = room.takeLast(bucket, Math.min(excess, Math.max(room.surplus, Math.ceil(excess / 2))))
    const waits = waitsMs(bucket, items.length, intervalMs, nowMs)
    for (const [position, item] of items.entries()) park(item, waits[position]!)
  }
  return room.waiting < before
}

/** Milliseconds from one start of a bucket's messages to the next, about, when all limits are used up. */
function startIntervalMs(limits: readonly ConfiguredLimit[], averageMs: number): number {
  return limits.reduce((longest, limit) => Math.max(longest, intervalOf(limit, averageMs)), 0)
}

function intervalOf(limit: ConfiguredLimit, averageMs: number): number {
  if (limit.kind === 'inFlight') return (averageMs < 0 ? DURATION_MS_UNKNOWN : averageMs) / limit.limit
  return (limit.perMs + limit.graceMs) / (limit.limit - limit.burst + 1)
}

// How many messages at the end of the bucket have to wait for long. Of a bucket that was not refused, the first has not.
function excessOf(bucket: Bucket, intervalMs: number, nowMs: number): number {
  if (intervalMs === 0) return 0
  const soon = Math.max(0, Math.floor((WORTH_MS - roomInMs(bucket, nowMs)) / intervalMs))
  return Math.max(0, bucket.waiting.length - (bucket.refused ? soon : Math.max(1, soon)))
}

function roomInMs(bucket: Bucket, nowMs: number): number {
  return bucket.refused ? Math.max(0, bucket.againAtMs - nowMs) : 0
}

/**
 * For each of the `messages` next ones to be set aside, behind what waits in the bucket and what was set aside before,
 * how long it is to wait. Moves the bucket's turn on.
 */
function waitsMs(bucket: Bucket, messages: number, intervalMs: number, nowMs: number): readonly number[] {
  const first = Math.max(bucket.turnAtMs, nowMs + roomInMs(bucket, nowMs) + bucket.waiting.length * intervalMs)
  bucket.turnAtMs = first + messages * intervalMs
  return Array.from({ length: messages }, (_, position) => {
    const waitMs = Math.ceil(first + position * intervalMs - nowMs)
    return Math.min(WAIT_MS_MAX, Math.max(WORTH_MS, waitMs))
  })
}
