import type {
  Admission,
  AdmissionDemand,
  FinishedMessages,
  InFlightLimit,
  Limit,
  RateLimit,
} from '../../../../engine.ts'
import { askAgainInMs, TokenBucket, takeStarts } from '../../../token-bucket.ts'
import * as sql from '../../sql/admission.ts'
import type { Statements } from '../file/connection.ts'

/** Who asks: the source, by the number that it has in its process, and its session. */
export interface Applicant {
  readonly subscriptionId: number
  readonly number: number
  readonly limits: readonly Limit[]
}

/** What one demand counts in. */
interface Counters {
  readonly rates: readonly { readonly limit: RateLimit; readonly bucket: string; readonly tokens: TokenBucket }[]
  readonly places: readonly { readonly limit: InFlightLimit; readonly bucket: string }[]
  /** How many more may be in flight. */
  readonly free: number
}

const ASK_FOR_PLACES_MS = 25
const IDLE_MS = 1_000
const IDLE_DELETED_MAX = 5_000

/**
 * Keeps to the limits of subscriptions over all processes: one row for each bucket of a rate limit, and one for each
 * source that holds places in a bucket of a limit of messages in flight. A row that is not there stands for a full
 * bucket, or for no places; so buckets that nobody uses any more cost nothing.
 */
export class Admissions {
  readonly #statements: Statements

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** `waitedMs`: for how long the call has been under way; its answer counts from its beginning. */
  admit(
    applicant: Applicant,
    sessionId: number,
    demands: readonly AdmissionDemand[],
    nowMs: number,
    waitedMs = 0,
  ): Admission[] {
    return demands.map((demand) => {
      const counters = this.#counters(applicant, demand.buckets, nowMs)
      const startsMs = takeStarts(tokensOf(counters), Math.min(demand.starts, counters.free), nowMs)
      if (startsMs.length > 0) this.#write(applicant, sessionId, counters, startsMs.length)
      return {
        startsInMs: startsMs.map((startMs) => startMs - nowMs + waitedMs),
        againInMs: againInMs(counters, startsMs.length, nowMs) + waitedMs,
      }
    })
  }

  /** Frees the places of messages that ended. */
  finish(
    { subscriptionId, number, limits }: Applicant,
    sessionId: number,
    finished: readonly FinishedMessages[],
  ): void {
    for (const { buckets, messages } of finished) {
      for (const [index, { kind, name }] of limits.entries()) {
        if (kind !== 'inFlight') continue
        const place = [subscriptionId, name, buckets[index]!, sessionId, number] as const
        const left = this.#statements.get<{ held: number }>(sql.FREE_PLACES, ...place, messages)
        if (left && left.held <= 0) this.#statements.run(sql.DELETE_PLACES, ...place)
      }
    }
  }

  /** Deletes the rows of buckets that are full. Returns whether there may be more of them. */
  forgetIdle(nowMs: number): boolean {
    const { changes } = this.#statements.run(sql.DELETE_IDLE_RATES, nowMs - IDLE_MS, IDLE_DELETED_MAX)
    return Number(changes) === IDLE_DELETED_MAX
  }

  #counters({ subscriptionId, limits }: Applicant, buckets: readonly string[], nowMs: number): Counters {
    const rates = []
    const places = []
    let free = Number.POSITIVE_INFINITY
    for (const [index, limit] of limits.entries()) {
      const bucket = buckets[index]!
      const key = [subscriptionId, limit.name, bucket] as const
      if (limit.kind === 'rate') {
        const stored = this.#statements.get<{ nextAtMs: number }>(sql.READ_RATE, ...key)
        rates.push({ limit, bucket, tokens: new TokenBucket(limit, stored?.nextAtMs, nowMs) })
      } else {
        const { held } = this.#statements.get<{ held: number }>(sql.COUNT_PLACES, ...key)!
        places.push({ limit, bucket })
        free = Math.min(free, Math.max(0, limit.limit - held))
      }
    }
    return { rates, places, free }
  }

  #write({ subscriptionId, number }: Applicant, sessionId: number, { rates, places }: Counters, started: number): void {
    for (const { limit, bucket, tokens } of rates) {
      this.#statements.run(sql.WRITE_RATE, subscriptionId, limit.name, bucket, tokens.nextAtMs)
    }
    for (const { limit, bucket } of places) {
      this.#statements.run(sql.TAKE_PLACES, subscriptionId, limit.name, bucket, sessionId, number, started)
    }
  }
}

function tokensOf({ rates }: Counters): TokenBucket[] {
  return rates.map(({ tokens }) => tokens)
}

function againInMs(counters: Counters, started: number, nowMs: number): number {
  const placesInMs = started >= counters.free ? ASK_FOR_PLACES_MS : 1
  return Math.max(placesInMs, askAgainInMs(tokensOf(counters), nowMs))
}
