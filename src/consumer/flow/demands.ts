import type { Buckets } from '../../engine.ts'
import type { Pace } from '../fetching/prefetch.ts'
import type { ConfiguredLimit } from '../settings.ts'
import type { Demand } from './admissions.ts'
import type { Bucket } from './bucket.ts'
import { placesIn } from './classifier.ts'

// What could start within this time is asked about.
const AHEAD_MS = 100
const AHEAD_MAX = 2_048
const BUCKETS_MAX = 200

/** Messages that handlers could start at once or soon. Of slow ones nobody knows when they end: their places count then. */
export function startsAhead({ averageMs, concurrency, callSize }: Pace, running: number): number {
  const free = Math.max(0, concurrency - running) * callSize
  if (averageMs < 0 || averageMs > AHEAD_MS) return free
  const soon = (concurrency * callSize * AHEAD_MS) / Math.max(averageMs, Number.EPSILON)
  return free + Math.min(AHEAD_MAX, Math.ceil(soon))
}

/**
 * What to ask about in question number `question`: the buckets that want to start messages and were not refused a moment
 * ago, those first that have not been asked about for longest, in equal shares of `starts` less what they have already.
 */
export function demandsOf(
  buckets: readonly Bucket[],
  starts: number,
  nowMs: number,
  question: number,
): readonly Demand[] {
  let left = buckets.reduce((rest, { permissions }) => rest - permissions, starts)
  const wanting = buckets.filter((bucket) => bucket.wanting > 0 && bucket.againAtMs <= nowMs)
  const asked = wanting.toSorted((one, other) => one.askedLast - other.askedLast).slice(0, BUCKETS_MAX)
  const share = Math.max(1, Math.ceil(left / asked.length))
  const demands: Demand[] = []
  for (const bucket of asked) {
    if (left <= 0) break
    const demand = { bucket, buckets: bucket.buckets, starts: Math.min(bucket.wanting, share, left) }
    bucket.askedLast = question
    left -= demand.starts
    demands.push(demand)
  }
  return demands
}

/**
 * Of the buckets that were refused, those that share a limit of messages in flight with places that were left may have
 * room now.
 */
export function askAgain(
  buckets: readonly Bucket[],
  limits: readonly ConfiguredLimit[],
  left: readonly Buckets[],
): void {
  const freed = new Set(left.flatMap((ofPlace) => placesIn(limits, ofPlace)))
  for (const bucket of buckets) {
    const hopeful = bucket.refused && placesIn(limits, bucket.buckets).some((place) => freed.has(place))
    if (hopeful) bucket.againAtMs = Number.NEGATIVE_INFINITY
  }
}
