/**
 * Keeps to the limits of subscriptions over all processes: of each bucket of a rate limit, the store knows the time at
 * which the bucket is full again; of each bucket of a limit of messages in flight, how many places each source holds.
 * The places of sources whose session is lost count no more, though nobody has given them back.
 *
 * A call is one transaction, which holds the lock of the subscription's counters. When it fails, nothing was admitted, and
 * nothing that ended was recorded; with POSTHORN_OUTCOME_UNKNOWN, permissions may be lost to the pace. Of the places of a
 * source nobody else decides: what the last answer said of them holds, and the next call sets the store right.
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
  /** How many places it holds in each counter in which it may hold some, as far as there were answers. */
  readonly held: Map<string, number>
  /** Its `session/number`, under which it holds them. */
  name: string
  /** A call has failed since, or the server is another one: the store may count otherwise. */
  isUncertain: boolean
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
    for (const counter of asked) known.held.set(counter, known.held.get(counter) ?? 0)
    const uncertain = known.isUncertain ? [...known.held.keys()] : []
    const transaction = this.#database.transaction(async (rows) => {
      const store = await CounterStore.open(rows, subscriptionId, [...asked, ...uncertain])
      for (const counter of uncertain) setRight(store, counter, source, known.held.get(counter)!)
      const nowMs = this.#clock.now()
      const waitedMs = this.#clock.elapsedMs() - calledAtMs
      for (const { buckets, messages } of ended) free(store, source, countersOf(limits, buckets), messages)
      const admissions = demands.map((demand) => admitOne(store, source, limits, demand, nowMs))
      store.save(nowMs)
      const held = asked.map((counter) => store.held(counter, source))
      return { admissions: admissions.map((admission) => countFromCall(admission, waitedMs)), held }
    })
    const { admissions, held } = await transaction.catch((error: unknown) => {
      known.isUncertain = true
      throw error
    })
    if (countsPlaces) known.places.update(finished, demands, admissions, sessionOf(source))
    known.isUncertain = false
    for (const [place, counter] of asked.entries()) noteHeld(known, counter, held[place]!)
    for (const counter of uncertain) noteHeld(known, counter, known.held.get(counter) ?? 0)
    return admissions
  }

  /** The server is another one, which may not have heard of the last changes. */
  serverChanged(): void {
    for (const known of this.#sources.values()) known.isUncertain = true
  }

  /** The source is closed, and holds no places any more. */
  async release(subscriptionId: number, source: string): Promise<void> {
    const counters = [...this.#known(subscriptionId, source).held.keys()]
    if (counters.length > 0) {
      await this.#database.transaction(async (rows) => {
        const store = await CounterStore.open(rows, subscriptionId, counters)
        for (const counter of counters) store.hold(counter, source, Number.NEGATIVE_INFINITY)
        store.save(this.#clock.now())
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
    const known = this.#sources.get(name) ?? newlyKnown(source)
    this.#sources.set(name, known)
    // What it held under a session that is lost counts no more.
    if (known.name !== source) known.held.clear()
    known.name = source
    return known
  }
}

function newlyKnown(name: string): KnownSource {
  return { places: new AdmittedPlaces(), held: new Map(), name, isUncertain: false }
}

function noteHeld({ held }: KnownSource, counter: string, places: number): void {
  if (places > 0) held.set(counter, places)
  else held.delete(counter)
}

function setRight(store: CounterStore, counter: string, source: string, places: number): void {
  const step = places - store.held(counter, source)
  if (step !== 0) store.hold(counter, source, step)
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
