/**
 * Asks the engine which messages may start, and tells it of those that ended: one call at a time, which carries both.
 *
 * States: idle; scheduled (something is to be asked or told in this turn); asking; pausing (the engine failed, and is
 * asked again after 100 ms, doubling to 5 s); stopped, which is final: closing the source frees all places. What a
 * failed call should have told goes with the next one.
 *
 * All times of an answer count from the call, the way to the engine and the wait there included. A permission lapses
 * `graceMs` after its time, so that what comes too late starts no message too late.
 */
import type { Admission, AdmissionDemand, Buckets, Source } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import type { Outage } from '../outage.ts'
import type { Bucket } from './bucket.ts'
import type { Places } from './places.ts'

// An engine that refuses and says "ask again at once" is asked again a moment later.
const AGAIN_MS_MIN = 1

export interface Demand extends AdmissionDemand {
  readonly bucket: Bucket
}

export interface AdmissionsHost {
  /** What to ask about now; also when there is only something to tell. */
  demands(): readonly Demand[]
  /** Places in these buckets are about to be told of: what waits for them is to be asked about again. */
  onLeft(buckets: readonly Buckets[]): void
  /** The call has returned. */
  onAnswer(): void
}

export class Admissions {
  readonly #source: Source
  readonly #clock: Clock
  readonly #outage: Outage
  readonly #places: Places
  readonly #graceMs: number
  readonly #host: AdmissionsHost
  readonly #stop = new AbortController()
  #active = false

  constructor(
    tools: { source: Source; clock: Clock; outage: Outage; places: Places; graceMs: number },
    host: AdmissionsHost,
  ) {
    this.#source = tools.source
    this.#clock = tools.clock
    this.#outage = tools.outage
    this.#places = tools.places
    this.#graceMs = tools.graceMs
    this.#host = host
  }

  /** There may be something to ask or to tell. */
  poke(): void {
    if (this.#active || this.#stop.signal.aborted) return
    this.#active = true
    setImmediate(() => void this.#run())
  }

  stop(): void {
    this.#stop.abort()
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      if (this.#places.untold) this.#host.onLeft(this.#places.left())
      const demands = this.#host.demands()
      if (demands.length === 0 && !this.#places.untold) break
      await this.#ask(demands)
    }
    this.#active = false
  }

  async #ask(demands: readonly Demand[]): Promise<void> {
    const finished = this.#places.take()
    const sentMs = this.#clock.elapsedMs()
    for (const { bucket } of demands) bucket.asked = true
    try {
      const questions = demands.map(({ buckets, starts }) => ({ buckets, starts }))
      const admissions = await this.#source.admit(questions, [...finished.values()])
      this.#outage.ended()
      for (const [position, demand] of demands.entries()) this.#answer(demand, admissions[position], sentMs)
    } catch (error) {
      this.#places.restore(finished)
      await pause(this.#clock, this.#outage.failed(error), this.#stop.signal)
    } finally {
      for (const { bucket } of demands) bucket.asked = false
    }
    if (!this.#stop.signal.aborted) this.#host.onAnswer()
  }

  #answer({ bucket, starts }: Demand, admission: Admission | undefined, sentMs: number): void {
    const { startsInMs, againInMs } = admission ?? { startsInMs: [], againInMs: 0 }
    const permissions = startsInMs.map((inMs) => ({ fromMs: sentMs + inMs, untilMs: sentMs + inMs + this.#graceMs }))
    bucket.admit(permissions)
    const refused = startsInMs.length < starts
    bucket.againAtMs = refused ? sentMs + Math.max(AGAIN_MS_MIN, againInMs) : Number.NEGATIVE_INFINITY
  }
}
