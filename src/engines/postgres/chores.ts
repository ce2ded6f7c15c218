/** What has to be done now and then for a store, whoever of its processes does it. */
import type { Clock, Timer } from '../../environment/index.ts'
import type { Database } from './database/database.ts'
import type { Turns } from './delivery/turns.ts'
import type { Admissions } from './limits/admissions.ts'
import type { Stored } from './log/append-work.ts'
import type { Delayed } from './log/delayed.ts'
import type { Retention } from './log/retention.ts'
import type { Steps } from './settlement/steps.ts'
import { steps } from './sql/steps.ts'

const PROMOTE_EVERY_MS = 1_000
const CLEAN_EVERY_MS = 10_000
const BUSY_MS = 250
const LEAVE_EVERY_MS = 1_000
const SWEEP_EVERY_MS = 600_000
const CHECK_EVERY_MS = 10_000
const CHECK_EVERY_MS_WITHOUT_NOTICES = 1_000
/** What is further away is found by looking again. */
const ALARM_MS_MAX = PROMOTE_EVERY_MS
/** A queue that is worked off deletes in larger pieces, and looks less often. */
const QUEUE_PAUSE_MS = 50

export interface ChoresParts {
  readonly clock: Clock
  readonly delayed: Delayed
  readonly retention: Retention
  readonly admissions: Admissions
  /** Delayed messages have entered the log. */
  onStored(stored: Stored): void
}

/** Lets delayed messages into the log when they are due: at an alarm for those that are known, or by looking. */
export class Promotions {
  readonly name = 'letting delayed messages into the log'
  readonly everyMs = PROMOTE_EVERY_MS
  readonly #parts: ChoresParts
  readonly #wake: () => void
  #alarm: Timer | undefined
  #alarmAtMs = Number.POSITIVE_INFINITY

  /** `wake`: has `run` called now. */
  constructor(parts: ChoresParts, wake: () => void) {
    this.#parts = parts
    this.#wake = wake
  }

  async run(): Promise<void> {
    const { clock, delayed, onStored } = this.#parts
    for (let unfinished = true; unfinished; ) {
      const promotion = await delayed.promoteDue(clock.now())
      if (promotion.batches.length > 0) onStored({ batches: promotion.batches })
      // Where time passes, whoever is at it is left to it for a while.
      if (promotion.busy && clock.real) return this.expect(clock.now() + BUSY_MS)
      unfinished = promotion.unfinished || promotion.busy
    }
    this.expect(await delayed.nextDueMs())
  }

  /** Something is due at this time. */
  expect(atMs: number | undefined): void {
    const { clock } = this.#parts
    if (atMs === undefined || atMs >= this.#alarmAtMs || atMs > clock.now() + ALARM_MS_MAX) return
    this.stop()
    this.#alarmAtMs = atMs
    this.#alarm = clock.setTimer(Math.max(1, atMs - clock.now()), () => {
      this.#alarmAtMs = Number.POSITIVE_INFINITY
      this.#wake()
    })
  }

  stop(): void {
    this.#alarm?.cancel()
    this.#alarmAtMs = Number.POSITIVE_INFINITY
  }
}

/** Deletes what nobody needs any more. */
export class Cleaning {
  readonly name = 'deleting what is not kept any longer'
  readonly everyMs = CLEAN_EVERY_MS
  readonly #parts: ChoresParts

  constructor(parts: ChoresParts) {
    this.#parts = parts
  }

  async run(): Promise<void> {
    const { clock, retention, admissions } = this.#parts
    const nowMs = clock.now()
    await retention.applyRetention(nowMs)
    await retention.forgetIds(nowMs)
    await admissions.forgetIdle(nowMs)
  }
}

/**
 * Has sources look at what others have done to what they hold: cancelled it, moved the subscription, asked for a share of
 * its partitions. A source that pulls sees it at once, one whose handlers are all busy is told by a notice; this is for
 * where there are none, and for one that was missed.
 */
export class Checks {
  readonly name = 'looking at what is held'
  readonly everyMs: number
  readonly #check: () => void

  constructor(check: () => void, hasNotices: boolean) {
    this.#check = check
    this.everyMs = hasNotices ? CHECK_EVERY_MS : CHECK_EVERY_MS_WITHOUT_NOTICES
  }

  async run(): Promise<void> {
    this.#check()
  }
}

/** Has sources that could not give back what they had try again. */
export class Departures {
  readonly name = 'giving back what closed subscriptions had'
  readonly everyMs = LEAVE_EVERY_MS
  readonly #leaving: ReadonlySet<{ leave(): Promise<void> }>

  constructor(leaving: ReadonlySet<{ leave(): Promise<void> }>) {
    this.#leaving = leaving
  }

  async run(): Promise<void> {
    for (const source of this.#leaving) await source.leave()
  }
}

/** Forgets the steps of messages that are not delivered again. Most have gone with their messages. */
export class StepSweeping {
  readonly name = 'forgetting steps'
  readonly everyMs = SWEEP_EVERY_MS
  readonly #database: Database
  readonly #turns: Turns
  readonly #steps: Steps

  constructor({ database, turns, steps }: { database: Database; turns: Turns; steps: Steps }) {
    this.#database = database
    this.#turns = turns
    this.#steps = steps
  }

  async run(): Promise<void> {
    const found = await this.#database.rows<{ subscriptionId: number }>(steps.withSteps)
    for (const { subscriptionId } of found) {
      await this.#turns.across([subscriptionId], async ([turn]) => turn && this.#steps.sweep(turn))
    }
  }
}

/** Deletes the settled messages of queues, soon after they were settled. */
export class QueueCleaning {
  readonly #parts: ChoresParts
  readonly #topicIds = new Set<number>()
  #running: Promise<void> | undefined
  #pausing: Timer | undefined
  #stopped = false

  constructor(parts: ChoresParts) {
    this.#parts = parts
  }

  settled(topicId: number): void {
    this.#topicIds.add(topicId)
    if (!this.#pausing && !this.#stopped) this.#running ??= this.#run()
  }

  /** Resolves when nothing is left to delete. */
  async idle(): Promise<void> {
    await this.#running
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#pausing?.cancel()
    await this.#running
  }

  async #run(): Promise<void> {
    const { clock, retention } = this.#parts
    while (this.#topicIds.size > 0) {
      const [topicId] = this.#topicIds
      this.#topicIds.delete(topicId!)
      // What fails is done with the next cleaning.
      await retention.applyTo(topicId!, clock.now()).catch(() => 0)
    }
    this.#running = undefined
    if (clock.real) this.#pause()
  }

  #pause(): void {
    this.#pausing = this.#parts.clock.setTimer(QUEUE_PAUSE_MS, () => {
      this.#pausing = undefined
      if (this.#topicIds.size > 0 && !this.#stopped) this.#running ??= this.#run()
    })
  }
}
