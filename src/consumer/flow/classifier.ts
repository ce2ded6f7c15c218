import type { Buckets, StoredEvent } from '../../engine.ts'
import type { ConfiguredLimit } from '../settings.ts'

/** What messages share that count in the same limits: without `by`, all of them share the empty bucket. */
export function bucketsOf(limits: readonly ConfiguredLimit[], event: StoredEvent): Buckets {
  return limits.map(({ name, by }) => (by === undefined ? '' : text(name, by(event))))
}

export function idOf(buckets: Buckets): string {
  return buckets.length === 1 ? buckets[0]! : JSON.stringify(buckets)
}

// What users wrote may give anything back, whatever its type says.
function text(limit: string, bucket: unknown): string {
  if (typeof bucket === 'string') return bucket
  if (bucket instanceof Promise) {
    // What becomes of it concerns nobody any more; left alone, its failure would end the process.
    bucket.catch(() => {})
    throw new TypeError(`The function \`by\` of limit ${limit} gave a promise; it has to return a string at once.`)
  }
  throw new TypeError(`The function \`by\` of limit ${limit} gave ${typeof bucket} and not a string.`)
}

/** Names the places in flight that a message takes: those who have a name in common share a limit. */
export function placesIn(limits: readonly ConfiguredLimit[], buckets: Buckets): readonly string[] {
  return buckets.flatMap((bucket, position) => (limits[position]?.kind === 'inFlight' ? `${position}:${bucket}` : []))
}

// Without rate limits, how long a place is kept for a message that does not start.
const PLACE_GRACE_MS = 100

/** How long a permission to start may be used. */
export function graceOf(limits: readonly ConfiguredLimit[]): number {
  const graces = limits.flatMap((limit) => (limit.kind === 'rate' ? limit.graceMs : []))
  return graces.length === 0 ? PLACE_GRACE_MS : Math.min(...graces)
}
