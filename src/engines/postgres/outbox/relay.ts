/**
 * Brings what was published within transactions of the user's into the log, soon after each has committed. All processes
 * are ready to; one relays at a time, mostly the same, which goes to work as soon as it is woken. The others hold back
 * for a moment, and find out whether it still does.
 *
 * It is idle, or in a round, or waits for a moment. It is woken by notices, which arrive when a transaction commits, by
 * polling, and by `expect` where there will be no notice. A round that fails is tried again with the next of these. What is
 * committed stays in the outbox until a round has committed it to the log.
 */
import type { AppendGroup, AppendOutcome } from '../../../engine.ts'
import type { Clock, Logger, Timer } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
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
    rows: Queryable,
    groups: readonly AppendGroup[],
  ): Promise<{ outcomes: readonly AppendOutcome[]; stored: Stored }>
  /** Called once it is committed. */
  onStored(stored: Stored): void
}

/** How long those that have not relayed last let somebody else go first. */
const HOLD_BACK_MS = 50
const POLL_MS = 1_000
const POLL_MS_WITHOUT_NOTICES = 100
/** Of what no notice will tell, an open transaction is expected to end soon at first, and then later and later. */
const EXPECT_MS_LEAST = 4
const EXPECT_MS_MAX = 256
/** Rounds that look at everything, for what no reckoning with transactions explains: a restored dump, a replica. */
const FULLY_EVERY_MS = 600_000
const WARNING_MS = 60_000

export class Relay {
  readonly #parts: RelayParts
  #leading = true
  #asked = false
  #running: Promise<void> | undefined
  #held: Timer | undefined
  #poll: Timer | undefined
  #expecting: Timer | undefined
  #expectMs = EXPECT_MS_LEAST
  #fullyAtMs = Number.NEGATIVE_INFINITY
  #warnedAtMs = Number.NEGATIVE_INFINITY
  #stopped = false

  constructor(parts: RelayParts) {
    this.#parts = parts
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
    if (!this.#expecting) this.#scheduleExpected()
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
    await this.#running
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
    const fully = clock.now() >= this.#fullyAtMs
    const round = new RelayRound({ ...this.#parts, waits: !clock.real, onCarried: (carried) => this.#note(carried) })
    const outcome = await round.run(fully)
    if (fully && !outcome.busy && !outcome.more) this.#fullyAtMs = clock.now() + FULLY_EVERY_MS
    this.#leading = outcome.leading
    return outcome
  }

  #holdBack(): void {
    this.#held ??= this.#parts.clock.setTimer(HOLD_BACK_MS, () => {
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
    this.#expecting = this.#parts.clock.setTimer(this.#expectMs, () => {
      this.#expecting = undefined
      this.wake()
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
    const nowMs = this.#parts.clock.now()
    if (this.#stopped || nowMs < this.#warnedAtMs + WARNING_MS) return
    this.#warnedAtMs = nowMs
    const fields = error instanceof PosthornError ? { code: error.code } : {}
    this.#parts.logger.warn(`The outbox could not be relayed, which is tried again: ${error.message}`, fields)
  }
}
