/**
 * The supply of a subscription with limits: stands in front of another one, and hands out only what has permission.
 *
 * Messages go from the supply behind into the queue of their bucket, so many in all, and from there to handlers, one
 * bucket after the other, each message with one permission. `Admissions` gets permissions from the engine: for what
 * free handlers could start, and busy ones soon will. It is asked only when a handler has asked here (`prepare`, `take`):
 * a consumer that starts nothing, for whatever reason, takes nothing from the others' share. What is not used in time
 * lapses, and frees its place.
 *
 * Events that need a check pass it first (`EventChecks`), so that a permission is used as soon as it may be. Those of
 * batches gather before permission is asked for, and permissions for a moment before they are used (`Gathering`).
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
import { graceOf } from './classifier.ts'
import { askAgain, demandsOf, startsAhead } from './demands.ts'
import { Entrance } from './entrance.ts'
import { Gathering } from './gathering.ts'
import { Places } from './places.ts'
import { makeRoom } from './set-aside.ts'
import type { SuspectTurn } from './suspect-turn.ts'
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
  readonly #gathering: Gathering
  readonly #entrance: Entrance
  readonly #suspect: SuspectTurn
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
    this.#entrance = new Entrance(base, this.#room, host, () => this.#changed())
    this.#suspect = this.#entrance.suspect
    const graceMs = graceOf(this.#limits)
    this.#gathering = new Gathering(host.settings.batch, this.#limits, this.#room, graceMs)
    this.#admissions = new Admissions(
      { source: host.source, clock: this.#clock, outage: host.outage, places: this.#places, graceMs },
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
    if (!this.looksFurther) return this.#entrance.underCheck + this.#room.waiting + this.#base.ahead
    // Of few buckets there is never enough: behind them may be those of others.
    return this.#room.size < this.#host.settings.concurrency ? 0 : this.count + this.#base.ahead
  }

  get blocked(): number {
    const waiting = this.looksFurther ? this.#entrance.underCheck + this.#room.waiting - this.count : 0
    return waiting + this.#base.blocked
  }

  get full(): boolean {
    return this.#room.full || this.#base.full
  }

  get leaving(): boolean {
    return this.#base.leaving
  }

  get oldestArrivedAtMs(): number | undefined {
    return this.count === 0 ? undefined : this.#room.oldestStartableMs
  }

  get startByMs(): number | undefined {
    return this.#gathering.startByMs(this.count, this.full, this.#clock.elapsedMs())
  }

  add(ledger: GrantLedger): void {
    this.#base.add(ledger)
  }

  prepare(): void {
    do this.#entrance.draw()
    while (this.#setAside())
    this.#hungry = true
    this.#look()
    this.#admissions.poke()
  }

  take(): Item | undefined {
    const nowMs = this.#clock.elapsedMs()
    // A few buckets may keep all handlers busy, and never ask for more, while others are waiting to be fetched.
    if (this.looksFurther && nowMs >= this.#lookedAtMs + LOOK_INTERVAL_MS) {
      this.#lookedAtMs = nowMs
      this.prepare()
    }
    const started = this.count > 0 || nowMs >= this.#nextMs ? this.#start(nowMs) : undefined
    if (started !== undefined) return started
    this.prepare()
    return this.count > 0 ? this.#start(this.#clock.elapsedMs()) : undefined
  }

  takeSuspect(running: number): Item | undefined {
    if (running > 0) return undefined
    for (;;) {
      if (this.#suspect.item === undefined) this.#entrance.drawSuspect()
      const { item, bucket } = this.#suspect
      if (item === undefined) return undefined
      if (item.ledger.isOpen(item.index)) return bucket && this.#startSuspect(item, bucket)
      this.#suspect.end()
    }
  }

  setDown(item: Item): void {
    this.#leave(item)
    this.#base.setDown(item)
  }

  putBack(item: Item, place: 'first' | 'last'): void {
    this.#leave(item)
    if (item.ledger.grant.isolated) this.#base.putBack(item, place)
    else this.#entrance.admit(item, place)
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
    this.#entrance.takeWhere((item) => item.ledger === ledger)
    this.#places.leaveAll(ledger)
    this.#base.drop(ledger)
    this.#look()
    this.#tell()
  }

  cancel(item: Item): void {
    this.#entrance.takeWhere(({ ledger, index }) => ledger === item.ledger && index === item.index)
    this.#base.cancel(item)
    this.#look()
  }

  withdraw(partitions: ReadonlySet<number>): readonly Item[] {
    const waiting = this.#entrance.takeWhere(({ ledger }) => partitions.has(ledger.grant.partition))
    const items = [...waiting, ...this.#base.withdraw(partitions)]
    this.#look()
    return items
  }

  drain(): readonly Item[] {
    const items = [...this.#entrance.takeWhere(() => true), ...this.#base.drain()]
    this.count = 0
    return items
  }

  stop(): void {
    this.#stopped = true
    this.#alarm.stop()
    this.#admissions.stop()
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

  #startSuspect(item: Item, bucket: Bucket): Item | undefined {
    this.#hungry = true
    this.#look()
    if (!bucket.use()) {
      this.#admissions.poke()
      return undefined
    }
    this.#suspect.end()
    this.#enter(item, bucket)
    return item
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
    const { bucket } = this.#suspect
    if (bucket !== undefined) return demandsOf([bucket], 1, nowMs, this.#question)
    if (this.#base.held || this.#gathers(nowMs)) return []
    const starts = startsAhead(this.#host.pace(), this.#host.running())
    return demandsOf(this.#room.buckets(), starts, nowMs, this.#question)
  }

  // Whether messages are still to come before anything is asked about; then it is looked at again in time.
  #gathers(nowMs: number): boolean {
    const untilMs = this.#gathering.messagesUntilMs(this.full)
    if (untilMs <= nowMs) return false
    this.#alarm.setBy(untilMs)
    return true
  }

  #setAside(): boolean {
    if (!this.looksFurther || !this.#room.full || this.#base.held) return false
    return makeRoom(this.#room, this.#host)
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
