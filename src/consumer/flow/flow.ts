/**
 * The supply of a subscription with limits: stands in front of another one, and hands out only what has permission.
 *
 * Messages go from the supply behind into the queue of their bucket, so many in all, and from there to handlers, one
 * bucket after the other, each message with one permission. `Admissions` gets permissions from the engine: for what
 * free handlers could start, and busy ones soon will. It is asked only when a handler has asked here (`prepare`, `take`):
 * a consumer that starts nothing, for whatever reason, takes nothing from the others' share. What is not used in time
 * lapses, and frees its place.
 *
 * A message in flight holds its place from its start until it has ended, was set down or put back, or its lease is lost.
 * A suspect needs permission like any other; nothing else is asked about while there is one.
 *
 * When the queues are full of messages that have long to wait, for the limit of their own bucket or because handlers are
 * slow, the largest buckets' last messages are set aside until about their turn, so that those of other buckets can be
 * fetched. Without buckets of their own (`by`), all would wait for the same, and nothing is set aside: the log keeps them.
 *
 * One timer, for the next permission that becomes usable or lapses, or the next bucket to ask about.
 */
import type { Clock } from '../../environment/index.ts'
import type { End, Intake, Item, Witness } from '../fetching/supply.ts'
import type { SupplyHost } from '../fetching/supply-line.ts'
import type { ConfiguredLimit } from '../settings.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { Admissions, type Demand } from './admissions.ts'
import { Alarm } from './alarm.ts'
import type { Bucket } from './bucket.ts'
import { bucketsOf, graceOf } from './classifier.ts'
import { askAgain, demandsOf, startsAhead } from './demands.ts'
import { Places } from './places.ts'
import { setAside, startIntervalMs } from './set-aside.ts'
import { WaitingRoom } from './waiting-room.ts'

const LOOK_INTERVAL_MS = 100

export class Flow implements Intake, Witness {
  /** Messages that may start now, as of the last look. */
  count = 0
  readonly looksFurther: boolean
  readonly #base: Intake
  readonly #inner: Witness | undefined
  readonly #host: SupplyHost
  readonly #clock: Clock
  readonly #limits: readonly ConfiguredLimit[]
  readonly #countsPlaces: boolean
  readonly #room = new WaitingRoom((bucket, permissions) => this.#lapsed(bucket, permissions))
  readonly #places = new Places()
  readonly #admissions: Admissions
  #suspect: { readonly item: Item; readonly bucket: Bucket } | undefined
  /** A handler has asked since the engine was asked. */
  #hungry = false
  #question = 0
  /** When `count` may grow by itself. */
  #nextMs = Number.POSITIVE_INFINITY
  readonly #alarm: Alarm
  #stopped = false
  /** When what the supply behind has was last drawn from it, though there was enough to start. */
  #lookedAtMs = Number.NEGATIVE_INFINITY

  constructor(base: Intake, inner: Witness | undefined, host: SupplyHost) {
    this.#base = base
    this.#inner = inner
    this.#host = host
    this.#clock = host.environment.clock
    this.#limits = host.settings.limits
    this.#countsPlaces = this.#limits.some(({ kind }) => kind === 'inFlight')
    this.looksFurther = this.#limits.some(({ by }) => by !== undefined)
    const tools = { source: host.source, clock: this.#clock, outage: host.outage, places: this.#places }
    this.#admissions = new Admissions(
      { ...tools, graceMs: graceOf(this.#limits) },
      {
        demands: () => this.#demands(),
        onLeft: (left) => askAgain(this.#room.buckets(), this.#limits, left),
        onAnswer: () => this.#changed(),
      },
    )
    this.#alarm = new Alarm(this.#clock, () => this.#changed())
  }

  get held(): boolean {
    return this.#base.held
  }

  get ahead(): number {
    if (!this.looksFurther) return this.#room.waiting + this.#base.ahead
    // Of few buckets there is never enough: behind them may be those of others.
    return this.#room.size < this.#host.settings.concurrency ? 0 : this.count + this.#base.ahead
  }

  get blocked(): number {
    return (this.looksFurther ? this.#room.waiting - this.count : 0) + this.#base.blocked
  }

  get full(): boolean {
    return this.#room.full || this.#base.full
  }

  get leaving(): boolean {
    return this.#base.leaving
  }

  get oldestArrivedAtMs(): number | undefined {
    if (this.count === 0) return undefined
    const startable = this.#room.buckets().filter((bucket) => bucket.startable > 0)
    const oldestMs = Math.min(...startable.map(({ waiting }) => waiting.first!.ledger.arrivedAtMs))
    return Number.isFinite(oldestMs) ? oldestMs : undefined
  }

  add(ledger: GrantLedger): void {
    this.#base.add(ledger)
  }

  prepare(): void {
    do this.#draw()
    while (this.#setAside())
    this.#hungry = true
    this.#look()
    this.#admissions.poke()
  }

  take(): Item | undefined {
    const nowMs = this.#clock.elapsedMs()
    if (this.looksFurther && nowMs >= this.#lookedAtMs + LOOK_INTERVAL_MS) this.#lookFurther(nowMs)
    const started = this.count > 0 || nowMs >= this.#nextMs ? this.#start(nowMs) : undefined
    if (started !== undefined) return started
    this.prepare()
    return this.count > 0 ? this.#start(this.#clock.elapsedMs()) : undefined
  }

  // A few buckets may keep all handlers busy, and never ask for more, while others are waiting to be fetched.
  #lookFurther(nowMs: number): void {
    this.#lookedAtMs = nowMs
    this.prepare()
  }

  takeSuspect(running: number): Item | undefined {
    if (running > 0) return undefined
    for (;;) {
      this.#suspect ??= this.#nextSuspect()
      if (this.#suspect === undefined) return undefined
      const { item, bucket } = this.#suspect
      if (item.ledger.isOpen(item.index)) return this.#startSuspect(item, bucket)
      this.#forgetSuspect()
    }
  }

  setDown(item: Item): void {
    this.#leave(item)
    this.#base.setDown(item)
  }

  putBack(item: Item, place: 'first' | 'last'): void {
    this.#leave(item)
    if (item.ledger.grant.isolated) this.#base.putBack(item, place)
    else this.#admit(item, place)
  }

  ended(item: Item, end: End): void {
    this.#leave(item)
    this.#inner?.ended(item, end)
  }

  recorded(item: Item): void {
    this.#inner?.recorded(item)
  }

  endExclusive(ledger: GrantLedger): boolean {
    return this.#base.endExclusive(ledger)
  }

  drop(ledger: GrantLedger): void {
    if (this.#suspect?.item.ledger === ledger) this.#forgetSuspect()
    this.#room.takeWhere((item) => item.ledger === ledger)
    this.#places.leaveAll(ledger)
    this.#base.drop(ledger)
    this.#look()
    this.#tell()
  }

  cancel(item: Item): void {
    this.#room.takeWhere(({ ledger, index }) => ledger === item.ledger && index === item.index)
    this.#base.cancel(item)
    this.#look()
  }

  withdraw(partitions: ReadonlySet<number>): readonly Item[] {
    const leaves = ({ ledger }: Item) => partitions.has(ledger.grant.partition)
    const suspects = this.#suspect !== undefined && leaves(this.#suspect.item) ? [this.#suspect.item] : []
    if (suspects.length > 0) this.#forgetSuspect()
    const items = [...this.#room.takeWhere(leaves), ...suspects, ...this.#base.withdraw(partitions)]
    this.#look()
    return items
  }

  drain(): readonly Item[] {
    const suspects = this.#suspect === undefined ? [] : [this.#suspect.item]
    this.#forgetSuspect()
    const items = [...this.#room.takeAll(), ...suspects, ...this.#base.drain()]
    this.count = 0
    return items
  }

  stop(): void {
    this.#stopped = true
    this.#alarm.stop()
    this.#admissions.stop()
  }

  // Fills the queues with what the supply behind has.
  #draw(): void {
    while (!this.#room.full && !this.#base.held) {
      const item = this.#base.take()
      if (item === undefined) return
      this.#admit(item, 'last')
    }
  }

  #admit(item: Item, place: 'first' | 'last'): void {
    const bucket = this.#classify(item)
    if (bucket !== undefined) this.#room.add(bucket, item, place)
  }

  #classify(item: Item): Bucket | undefined {
    try {
      return this.#room.bucket(bucketsOf(this.#limits, item.ledger.message(item.index).event))
    } catch (error) {
      this.#host.reject(item, error)
      return undefined
    }
  }

  #start(nowMs: number): Item | undefined {
    const started = this.#room.start(nowMs)
    if (started === undefined) {
      this.count = 0
      return undefined
    }
    this.count = Math.max(0, this.count - 1)
    this.#hungry = true
    this.#enter(started.item, started.bucket)
    this.#admissions.poke()
    return started.item
  }

  #nextSuspect(): { item: Item; bucket: Bucket } | undefined {
    const item = this.#base.takeSuspect(0)
    const bucket = item && this.#classify(item)
    if (item === undefined || bucket === undefined) return undefined
    bucket.suspected = true
    return { item, bucket }
  }

  #startSuspect(item: Item, bucket: Bucket): Item | undefined {
    this.#hungry = true
    this.#look()
    if (!bucket.use()) {
      this.#admissions.poke()
      return undefined
    }
    this.#forgetSuspect()
    this.#enter(item, bucket)
    return item
  }

  #forgetSuspect(): void {
    if (this.#suspect !== undefined) this.#suspect.bucket.suspected = false
    this.#suspect = undefined
  }

  #lapsed(bucket: Bucket, permissions: number): void {
    if (!this.#countsPlaces) return
    this.#places.leaveUnused(bucket, permissions)
    this.#tell()
  }

  #enter(item: Item, bucket: Bucket): void {
    if (this.#countsPlaces) this.#places.enter(item, bucket)
  }

  #leave(item: Item): void {
    if (!this.#countsPlaces) return
    this.#places.leave(item)
    this.#tell()
  }

  #tell(): void {
    if (this.#places.untold) this.#admissions.poke()
  }

  #demands(): readonly Demand[] {
    if (!this.#hungry) return []
    this.#hungry = false
    this.#question++
    const nowMs = this.#clock.elapsedMs()
    if (this.#suspect !== undefined) return demandsOf([this.#suspect.bucket], 1, nowMs, this.#question)
    if (this.#base.held) return []
    const starts = startsAhead(this.#host.pace(), this.#host.running())
    return demandsOf(this.#room.buckets(), starts, nowMs, this.#question)
  }

  #setAside(): boolean {
    const { settings, environment } = this.#host
    if (!this.looksFurther || !this.#room.full || this.#base.held) return false
    const { averageMs } = this.#host.pace()
    const intervalMs = Math.max(startIntervalMs(this.#limits, averageMs), averageMs / settings.concurrency)
    const timeMs = environment.clock.now()
    return setAside(this.#room, intervalMs, this.#clock.elapsedMs(), (item, waitMs) =>
      this.#host.park(item, timeMs + waitMs),
    )
  }

  // Counts what may start now, and sets the timer for when that changes by itself.
  #look(): void {
    if (this.#stopped) return
    const { startable, againAtMs } = this.#room.look(this.#clock.elapsedMs())
    this.count = startable
    this.#nextMs = againAtMs
    this.#alarm.setBy(againAtMs)
  }

  #changed(): void {
    if (this.#stopped) return
    this.#look()
    this.#host.onStartable()
  }
}
