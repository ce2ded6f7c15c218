/**
 * Brings what was published within transactions of the user's into the log, soon after each has committed. All processes
 * are ready to; one relays at a time, mostly the same, which goes to work as soon as it is woken, and tries again at once
 * when it finds somebody else at work. The others hold back for a moment, and find out whether it still does: by a look
 * at what is left, with which they are in nobody's way.
 *
 * It is idle, or in a round, or waits for a moment. It is woken by notices, which arrive when a transaction commits, by
 * polling, and by `expect` where there will be no notice. A round that fails is tried again with the next of these. What is
 * committed stays in the outbox until a round has committed it to the log.
 */
import type { AppendGroup, AppendOutcome } from '../../../engine.ts'
import { type Clock, type Logger, OnceAMinute, type Timer } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Transaction } from '../database/statement.ts'
import type { Stored } from '../log/append-work.ts'
import { outbox } from '../sql/outbox.ts'
import { type Carried, RelayRound, type RoundOutcome } from './relay-round.ts'

export interface RelayParts {
  readonly database: Database
  readonly clock: Clock
  readonly logger: Logger
  /** Names this process among those that use the store. */
  readonly name: string
  /** Whether commits are told by notices. */
  readonly hasNotices: boolean
  /** Stores groups within a transaction, whatever the backlog is: publishing has looked at it. */
  store(
    rows: Transaction,
    groups: readonly AppendGroup[],
  ): Promise<{ outcomes: readonly AppendOutcome[]; stored: Stored }>
  /** Called once it is committed. */
  onStored(stored: Stored): void
}

/** How long those that have not relayed last let somebody else go first. */
const HOLD_BACK_MS = 50
/** How soon and how often the one that relays mostly tries again before it leaves that to whom it finds at work. */
const TRY_AGAIN_MS = 2
const TRIES_MAX = 25
const POLL_MS = 1_000
const POLL_MS_WITHOUT_NOTICES = 100
/** Of what no notice will tell, an open transaction is expected to end soon at first, and then later and later. */
const EXPECT_MS_LEAST = 2
const EXPECT_MS_MAX = 256
/** The more a round has found, the longer, in its own time, it is waited before another one, so that more goes together. */
const REST_SHARE_MAX = 10
/** Looks for what was missed, which no reckoning with transactions explains: a restored dump, a replica. */
const LOOK_EVERY_MS = 600_000
const NOTHING_LEFT: RoundOutcome = { busy: false, more: false, leading: false, groups: 0 }

export class Relay {
  readonly #parts: RelayParts
  #leading = true
  /** Rounds in a row for which somebody else had the turn. */
  #busyRounds = 0
  #asked = false
  #running: Promise<void> | undefined
  #held: Timer | undefined
  #poll: Timer | undefined
  #expecting: Timer | undefined
  #expectMs = EXPECT_MS_LEAST
  #expectedAtMs = 0
  /** Until then nothing is looked for that was not told of. */
  #restsUntilMs = 0
  #lookAtMs = Number.NEGATIVE_INFINITY
  #looking: Promise<void> | undefined
  /** Something was missed, so that the next round is to look at everything. */
  #fully = false
  readonly #warning: OnceAMinute
  #stopped = false

  constructor(parts: RelayParts) {
    this.#parts = parts
    this.#warning = new OnceAMinute(parts.clock)
  }

  start(): void {
    this.#schedulePoll()
    this.#go()
  }

  /** Something was committed, in whichever process. */
  wake(): void {
    if (this.#stopped || this.#held) return
    if (this.#leading || !this.#parts.clock.real) this.#go()
    else this.#holdBack()
  }

  /** A transaction of this process has something for it, if it commits; `told`: a notice will say when. */
  expect(told = false): void {
    if (this.#stopped || (told && this.#parts.hasNotices)) return
    this.#expectMs = EXPECT_MS_LEAST
    // One that is due before is left as it is, or many publications would put it off for ever.
    const soonestMs = Math.max(this.#parts.clock.elapsedMs() + EXPECT_MS_LEAST, this.#restsUntilMs)
    if (this.#expecting && this.#expectedAtMs <= soonestMs) return
    this.#expecting?.cancel()
    this.#scheduleExpected()
  }

  /** Relays what there is, and what waited for a topic that is there now. Rejects when that failed. */
  async poll(): Promise<void> {
    await this.#parts.database.run(outbox.refloat)
    await this.#running
    while (await this.#roundLeavesMore()) {}
  }

  /** Finishes the round under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    for (const timer of [this.#held, this.#poll, this.#expecting]) timer?.cancel()
    await Promise.all([this.#running, this.#looking])
  }

  #go(): void {
    this.#asked = true
    this.#running ??= this.#runAsked().finally(() => {
      this.#running = undefined
    })
  }

  async #runAsked(): Promise<void> {
    while (this.#asked && !this.#stopped) {
      this.#asked = false
      try {
        if (await this.#roundLeavesMore()) this.#asked = true
      } catch (error) {
        this.#warn(error as Error)
      }
    }
  }

  /** What somebody else is at is left to him for a moment, if time passes. */
  async #roundLeavesMore(): Promise<boolean> {
    const { busy, more } = await this.#round()
    if (!busy) return more
    if (!this.#parts.clock.real) return true
    this.#holdBack()
    return false
  }

  async #round(): Promise<RoundOutcome> {
    const { clock } = this.#parts
    const fully = this.#fully
    const round = new RelayRound({ ...this.#parts, waits: !clock.real, onCarried: (carried) => this.#note(carried) })
    if (clock.now() >= this.#lookAtMs) this.#lookForMissed(round)
    if (clock.real && !fully && !this.#leading && !(await round.isNeeded())) return NOTHING_LEFT
    const startedAtMs = clock.elapsedMs()
    const outcome = await round.run(fully)
    const tookMs = clock.elapsedMs() - startedAtMs
    this.#restsUntilMs = startedAtMs + tookMs * (1 + Math.min(outcome.groups, REST_SHARE_MAX))
    if (fully && !outcome.busy && !outcome.more) this.#fully = false
    this.#busyRounds = outcome.busy ? this.#busyRounds + 1 : 0
    this.#leading = outcome.busy ? this.#leading && this.#busyRounds < TRIES_MAX : outcome.leading
    return outcome
  }

  /** Beside the rounds, which go on: where a long transaction has kept dead rows, the look at them takes a while. */
  #lookForMissed(round: RelayRound): void {
    this.#lookAtMs = this.#parts.clock.now() + LOOK_EVERY_MS
    const looked = round.hasMissed().then((hasMissed) => {
      if (!hasMissed) return
      this.#fully = true
      this.#go()
    })
    this.#looking = looked.catch((error: Error) => this.#warn(error))
  }

  #holdBack(): void {
    this.#held ??= this.#parts.clock.setTimer(this.#leading ? TRY_AGAIN_MS : HOLD_BACK_MS, () => {
      this.#held = undefined
      this.#go()
    })
  }

  #schedulePoll(): void {
    const { clock, hasNotices } = this.#parts
    this.#poll = clock.setTimer(hasNotices ? POLL_MS : POLL_MS_WITHOUT_NOTICES, () => {
      const polled = this.poll().catch((error: Error) => this.#warn(error))
      void polled.finally(() => this.#stopped || this.#schedulePoll())
    })
  }

  #scheduleExpected(): void {
    const { clock } = this.#parts
    const nowMs = clock.elapsedMs()
    this.#expectedAtMs = Math.max(nowMs + this.#expectMs, this.#restsUntilMs)
    this.#expecting = clock.setTimer(this.#expectedAtMs - nowMs, () => {
      this.#expecting = undefined
      // Nobody else is told of it, so it is for this process to look.
      this.#go()
      this.#expectMs *= 2
      if (this.#expectMs <= EXPECT_MS_MAX) this.#scheduleExpected()
    })
  }

  #note({ stored, stranded }: Carried): void {
    for (const one of stored) this.#parts.onStored(one)
    for (const { topic, code, problem, outboxId } of stranded) {
      const message = `Messages that were published within a transaction into ${topic} could not be stored, and are kept`
      this.#parts.logger.error(`${message} aside: ${problem}`, { topic, code, outboxId })
    }
  }

  #warn(error: Error): void {
    if (this.#stopped || !this.#warning.isDue()) return
    const fields = error instanceof PosthornError ? { code: error.code } : {}
    this.#parts.logger.warn(`The outbox could not be relayed, which is tried again: ${error.message}`, fields)
  }
}
