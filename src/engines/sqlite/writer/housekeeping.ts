/**
 * What becomes due by itself: delayed messages, lost sessions, retention, leases to be given back; and the alarm that
 * says when to look again.
 *
 * A failing file: what is due stays due, and is looked at again `LOOK_MS` later.
 */
import type { LeaseId } from '../../../engine.ts'
import type { Clock, Timer } from '../../../environment/index.ts'
import type { Store } from '../store/store.ts'
import type { CancelNotices } from './cancel-notices.ts'
import { Indulgence } from './indulgence.ts'
import type { Operation } from './operations.ts'
import type { Session } from './session.ts'
import type { OpenSource, Sources } from './sources.ts'

/** How often the safety net looks whether another process changed the file, should its wake-up have been missed. */
const LOOK_MS = 100
const RETENTION_MS = 5_000
/** Looking that much too late means that the process, the machine or the clock did not run evenly. */
const STALL_MS = 1_000

export class Housekeeping {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  readonly #cancelNotices: CancelNotices
  readonly #clock: Clock
  readonly #onAlarm: () => void
  readonly #indulgence = new Indulgence()
  readonly #stranded = new Map<LeaseId, OpenSource>()
  #timer: Timer | undefined
  #saidAtMs = Number.POSITIVE_INFINITY
  #retentionAtMs: number
  #dataVersion = -1
  #lookedAtMs: number
  /** A round did all that it may do at a time, and left more. */
  #unfinished = false

  constructor(
    store: Store,
    sources: Sources,
    session: Session,
    cancelNotices: CancelNotices,
    clock: Clock,
    onAlarm: () => void,
  ) {
    this.#store = store
    this.#sources = sources
    this.#session = session
    this.#cancelNotices = cancelNotices
    this.#clock = clock
    this.#onAlarm = onAlarm
    this.#lookedAtMs = clock.now()
    this.#retentionAtMs = this.#lookedAtMs + RETENTION_MS
    // Whatever stopped all of the others just now may have let this process start.
    if (clock.real) this.#indulgence.begin(this.#lookedAtMs)
  }

  /** Gives leases of this process back in a later turn. */
  giveBack(source: OpenSource, leases: readonly LeaseId[]): void {
    for (const lease of leases) this.#stranded.set(lease, source)
  }

  /** The operations that are due now. */
  due(nowMs: number): Operation[] {
    this.#noticeStall(nowMs)
    this.#unfinished = false
    const operations: Operation[] = []
    if (this.#stranded.size > 0) operations.push(this.#returnStranded())
    if (nowMs >= this.#retentionAtMs) operations.push(housework(() => this.#retain(nowMs)))
    try {
      operations.push(...this.#store.connection.read(() => this.#dueInStore(nowMs)))
    } catch {
      // The calls and pulls of this turn meet the same failure, and report it.
    }
    return operations
  }

  /** Sets the alarm for what comes next. With held time, returns when that is, if it has not been said yet. */
  setAlarm(again: boolean): number | undefined {
    const nowMs = this.#clock.now()
    const nextMs = again || this.#unfinished ? nowMs : this.#nextMs(nowMs)
    this.#timer?.cancel()
    if (this.#clock.real) {
      // What is due and was not done in this turn has to wait for something else, a resume() for example.
      const delayMs = again || this.#unfinished ? 0 : nextMs > nowMs ? Math.min(nextMs - nowMs, LOOK_MS) : LOOK_MS
      this.#timer = this.#clock.setTimer(delayMs, () => this.#look())
      return undefined
    }
    if (nextMs === this.#saidAtMs || nextMs === Number.POSITIVE_INFINITY) return undefined
    this.#saidAtMs = nextMs
    return nextMs
  }

  stop(): void {
    this.#timer?.cancel()
  }

  #dueInStore(nowMs: number): Operation[] {
    const { log, sessions } = this.#store
    const operations: Operation[] = []
    if ((log.nextDelayedMs() ?? Number.POSITIVE_INFINITY) <= nowMs) {
      operations.push(this.#promote(nowMs))
    }
    const lost = sessions.lost(nowMs, this.#session.id)
    this.#indulgence.note(lost)
    for (const sessionId of lost) {
      operations.push(housework(() => this.#giveUp(sessionId, nowMs)))
    }
    const cancelled = this.#cancelNotices.due()
    if (cancelled) operations.push(cancelled)
    return operations
  }

  // A limited number at a time, so that publishers get their turn in between; with held time there is no "in between".
  #promote(nowMs: number): Operation {
    let unfinished = false
    const promote = () => {
      let total = 0
      do {
        const round = this.#store.log.promoteDue(nowMs)
        total += round.promoted
        unfinished = round.unfinished
      } while (unfinished && !this.#clock.real)
      return total
    }
    const committed = () => {
      this.#unfinished = unfinished
    }
    return { ...housework(promote), committed }
  }

  // Looked at again within the transaction: the session may have been renewed while we waited for the lock.
  #giveUp(sessionId: number, nowMs: number): number {
    const { connection, sessions } = this.#store
    if (this.#clock.real && connection.takeLongestWaitMs() > LOOK_MS) this.#indulgence.begin(this.#clock.now())
    if (this.#indulgence.spares(sessionId, nowMs) || !sessions.isLost(sessionId, nowMs)) return 0
    sessions.giveUp(sessionId, nowMs)
    return 1
  }

  #noticeStall(nowMs: number): void {
    if (this.#clock.real && nowMs - this.#lookedAtMs > STALL_MS) this.#indulgence.begin(nowMs)
    this.#lookedAtMs = nowMs
  }

  // A round that deleted something may have left more: it goes on soon rather than fall behind.
  #retain(nowMs: number): number {
    const { log, retention } = this.#store
    const deleted = log.forgetExpiredIds(nowMs) + retention.apply(nowMs)
    this.#store.steps.sweep()
    const moreIdle = this.#store.admissions.forgetIdle(nowMs)
    this.#retentionAtMs = nowMs + (deleted > 0 || moreIdle ? LOOK_MS : RETENTION_MS)
    return deleted
  }

  #returnStranded(): Operation {
    const stranded = [...this.#stranded]
    return {
      ...housework(() => {
        for (const [lease] of stranded) this.#store.recall.release(lease, this.#session.id)
        return stranded.length
      }),
      committed: () => {
        for (const [lease, source] of stranded) {
          source.leases.delete(lease)
          this.#stranded.delete(lease)
        }
      },
    }
  }

  #nextMs(nowMs: number): number {
    if (this.#stranded.size > 0 || !this.#sources.closing().next().done) return nowMs
    try {
      return this.#store.connection.read(() => this.#nextInStoreMs())
    } catch {
      return nowMs + LOOK_MS
    }
  }

  #nextInStoreMs(): number {
    const { log, sessions, exceptions } = this.#store
    let nextMs = Math.min(
      log.nextDelayedMs() ?? Number.POSITIVE_INFINITY,
      sessions.nextLossMs(this.#session.id) ?? Number.POSITIVE_INFINITY,
      this.#session.renewalDueMs,
    )
    for (const source of this.#sources.all()) {
      if (source.pull) nextMs = Math.min(nextMs, exceptions.nextDueMs(source.subscriptionId) ?? nextMs)
    }
    return nextMs
  }

  #look(): void {
    const nowMs = this.#clock.now()
    const changed = this.#changed()
    const askedFor = changed || this.#unfinished || this.#sources.anyCrowded()
    if (askedFor || this.#nextMs(nowMs) <= nowMs || nowMs >= this.#retentionAtMs) this.#onAlarm()
    else {
      this.#noticeStall(nowMs)
      this.setAlarm(false)
    }
  }

  #changed(): boolean {
    try {
      const { data_version } = this.#store.connection.get<{ data_version: number }>('PRAGMA data_version')!
      const changed = data_version !== this.#dataVersion
      this.#dataVersion = data_version
      return changed
    } catch {
      return true
    }
  }
}

/** `run` returns how much it changed. */
function housework(run: () => number): Operation {
  let changed = 0
  return {
    transactional: true,
    durable: false,
    run: () => {
      changed = run()
    },
    concernsOthers: () => changed > 0,
  }
}
