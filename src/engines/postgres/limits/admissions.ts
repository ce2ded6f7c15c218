/**
 * Keeps to the limits of subscriptions over all processes: of each bucket of a rate limit, the store knows the time at
 * which the bucket is full again; of each bucket of a limit of messages in flight, how many places each source holds.
 * The places of sources whose session is lost count no more, though nobody has given them back.
 *
 * A call is one transaction, which holds the lock of the subscription's counters. When it fails, nothing was admitted, and
 * nothing that ended was recorded; with POSTHORN_OUTCOME_UNKNOWN, permissions may be lost to the pace, and places stay
 * taken until the source closes.
 */
import { createHash } from 'node:crypto'
import type {
  Admission,
  AdmissionDemand,
  Buckets,
  FinishedMessages,
  InFlightLimit,
  Limit,
  RateLimit,
} from '../../../engine.ts'
import type { Clock } from '../../../environment/index.ts'
import { AdmittedPlaces } from '../../admitted-places.ts'
import { askAgainInMs, TokenBucket, takeStarts } from '../../token-bucket.ts'
import { sessionOf } from '../consumers/source-name.ts'
import type { Database } from '../database/database.ts'
import * as sql from '../sql/limits.ts'
import { CounterStore } from './counter-store.ts'

const ASK_FOR_PLACES_MS = 25
/** Buckets are kept for so long after they are full, because the clocks of processes differ. */
const IDLE_MS = 1_000
/** A key of the index: a longer name gives way to its hash. */
const COUNTER_LENGTH_MAX = 200

/** A bucket that a demand counts in. */
interface Counted<Kind extends Limit> {
  readonly limit: Kind
  readonly counter: string
}

interface Counters {
  readonly rates: readonly Counted<RateLimit>[]
  readonly places: readonly Counted<InFlightLimit>[]
}

/** What this process knows of a source that it has open, under whichever session. */
interface KnownSource {
  readonly places: AdmittedPlaces
  /** In which it may hold places. */
  readonly counters: Set<string>
}

export class Admissions {
  readonly #database: Database
  readonly #clock: Clock
  readonly #sources = new Map<string, KnownSource>()
  #forgottenToMs = Number.NEGATIVE_INFINITY

  constructor(database: Database, clock: Clock) {
    this.#database = database
    this.#clock = clock
  }

  /** As `Source.admit`. `source`: its `session/number`. */
  async admit(
    subscriptionId: number,
    source: string,
    limits: readonly Limit[],
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    const calledAtMs = this.#clock.elapsedMs()
    const known = this.#known(subscriptionId, source)
    const countsPlaces = limits.some(({ kind }) => kind === 'inFlight')
    const ended = countsPlaces ? known.places.heldOf(finished) : []
    const asked = [...demands, ...ended].flatMap(({ buckets }) => namesOf(countersOf(limits, buckets)))
    // Noted before, because it may never be known what became of the transaction.
    for (const counter of asked) known.counters.add(counter)
    const { admissions, held } = await this.#database.transaction(async (rows) => {
      const store = await CounterStore.open(rows, subscriptionId, asked)
      const nowMs = this.#clock.now()
      const waitedMs = this.#clock.elapsedMs() - calledAtMs
      for (const { buckets, messages } of ended) free(store, source, countersOf(limits, buckets), messages)
      const admissions = demands.map((demand) => admitOne(store, source, limits, demand, nowMs))
      await store.save(nowMs)
      const held = new Set(asked.filter((counter) => store.holds(counter, source)))
      return { admissions: admissions.map((admission) => countFromCall(admission, waitedMs)), held }
    })
    if (countsPlaces) known.places.update(finished, demands, admissions, sessionOf(source))
    for (const counter of asked) if (!held.has(counter)) known.counters.delete(counter)
    return admissions
  }

  /** The source is closed, and holds no places any more. */
  async release(subscriptionId: number, source: string): Promise<void> {
    const counters = [...this.#known(subscriptionId, source).counters]
    if (counters.length > 0) {
      await this.#database.transaction(async (rows) => {
        const store = await CounterStore.open(rows, subscriptionId, counters)
        for (const counter of counters) store.hold(counter, source, Number.NEGATIVE_INFINITY)
        await store.save(this.#clock.now())
      })
    }
    this.#sources.delete(nameOf(subscriptionId, source))
  }

  /** Deletes the counters of buckets that are full. To be called now and then. */
  async forgetIdle(nowMs: number): Promise<void> {
    const toMs = nowMs - IDLE_MS
    if (toMs <= this.#forgottenToMs) return
    await this.#database.run(sql.counters.forgetFull, this.#forgottenToMs, toMs)
    this.#forgottenToMs = toMs
  }

  #known(subscriptionId: number, source: string): KnownSource {
    const name = nameOf(subscriptionId, source)
    const known = this.#sources.get(name) ?? { places: new AdmittedPlaces(), counters: new Set() }
    this.#sources.set(name, known)
    return known
  }
}

function admitOne(
  store: CounterStore,
  source: string,
  limits: readonly Limit[],
  { buckets, starts }: AdmissionDemand,
  nowMs: number,
): Admission {
  const counters = countersOf(limits, buckets)
  const tokens = counters.rates.map(({ limit, counter }) => new TokenBucket(limit, store.fullAtMs(counter), nowMs))
  const wanted = store.isAlive(source) ? Math.min(starts, freePlaces(store, counters)) : 0
  const startsMs = takeStarts(tokens, wanted, nowMs)
  if (startsMs.length > 0) {
    for (const [place, { counter }] of counters.rates.entries()) store.setFullAtMs(counter, tokens[place]!.nextAtMs)
    for (const { counter } of counters.places) store.hold(counter, source, startsMs.length)
  }
  const placesInMs = !store.isAlive(source) || freePlaces(store, counters) === 0 ? ASK_FOR_PLACES_MS : 1
  return {
    startsInMs: startsMs.map((startMs) => startMs - nowMs),
    againInMs: Math.max(placesInMs, askAgainInMs(tokens, nowMs)),
  }
}

function countFromCall({ startsInMs, againInMs }: Admission, waitedMs: number): Admission {
  return { startsInMs: startsInMs.map((startMs) => startMs + waitedMs), againInMs: againInMs + waitedMs }
}

function free(store: CounterStore, source: string, { places }: Counters, messages: number): void {
  for (const { counter } of places) store.hold(counter, source, -messages)
}

function freePlaces(store: CounterStore, { places }: Counters): number {
  const free = places.map(({ limit, counter }) => Math.max(0, limit.limit - store.taken(counter)))
  return Math.min(Number.POSITIVE_INFINITY, ...free)
}

function countersOf(limits: readonly Limit[], buckets: Buckets): Counters {
  const rates: Counted<RateLimit>[] = []
  const places: Counted<InFlightLimit>[] = []
  for (const [place, limit] of limits.entries()) {
    const counter = counterOf(limit.kind, limit.name, buckets[place]!)
    if (limit.kind === 'rate') rates.push({ limit, counter })
    else places.push({ limit, counter })
  }
  return { rates, places }
}

function namesOf({ rates, places }: Counters): string[] {
  return [...rates, ...places].map(({ counter }) => counter)
}

/** What a bucket of a limit is called among the counters of its subscription. */
export function counterOf(kind: Limit['kind'], limit: string, bucket: string): string {
  return shorten(JSON.stringify([kind, limit, bucket]))
}

function shorten(counter: string): string {
  if (counter.length <= COUNTER_LENGTH_MAX) return counter
  return createHash('sha256').update(counter).digest('hex')
}

/** The same for all sessions that the source has had. */
function nameOf(subscriptionId: number, source: string): string {
  return `${subscriptionId}/${source.slice(source.lastIndexOf('/') + 1)}`
}
