import type { Clock, Timer } from '../../../environment/index.ts'
import type { Store } from '../store/store.ts'
import type { Operation } from './operations.ts'
import type { Session } from './session.ts'
import type { Sources } from './sources.ts'

/** How often the safety net looks whether another process changed the file, should its wake-up have been missed. */
const LOOK_MS = 100
const RETENTION_MS = 5_000

/** What becomes due by itself: delayed messages, lost sessions, retention; and the alarm that says when to look again. */
export class Housekeeping {
  readonly #store: Store
  readonly #sources: Sources
  readonly #session: Session
  readonly #clock: Clock
  readonly #onAlarm: () => void
  #timer: Timer | undefined
  #saidAtMs = Number.POSITIVE_INFINITY
  #retentionAtMs: number
  #dataVersion = -1

  constructor(store: Store, sources: Sources, session: Session, clock: Clock, onAlarm: () => void) {
    this.#store = store
    this.#sources = sources
    this.#session = session
    this.#clock = clock
    this.#onAlarm = onAlarm
    this.#retentionAtMs = clock.now() + RETENTION_MS
  }

  /** The operations that are due now. */
  due(nowMs: number): Operation[] {
    const { log, sessions, retention } = this.#store
    const operations: Operation[] = []
    if ((log.nextDelayedMs() ?? Number.POSITIVE_INFINITY) <= nowMs) {
      operations.push(housework(() => log.promoteDue(nowMs)))
    }
    for (const sessionId of sessions.lost(nowMs, this.#session.id)) {
      operations.push(housework(() => sessions.giveUp(sessionId, nowMs)))
    }
    if (nowMs >= this.#retentionAtMs) {
      operations.push(
        housework(() => {
          log.forgetExpiredIds(nowMs)
          // A full round means that there is more to delete: go on at once rather than fall behind.
          this.#retentionAtMs = nowMs + (retention.apply(nowMs) > 0 ? LOOK_MS : RETENTION_MS)
        }),
      )
    }
    return operations
  }

  /** Sets the alarm for what comes next. With held time, returns when that is, if it has not been said yet. */
  setAlarm(again: boolean): number | undefined {
    const nowMs = this.#clock.now()
    const nextMs = again ? nowMs : this.#nextMs()
    this.#timer?.cancel()
    if (this.#clock.real) {
      // What is due and was not done in this turn has to wait for something else, a resume() for example.
      const delayMs = again ? 0 : nextMs > nowMs ? Math.min(nextMs - nowMs, LOOK_MS) : LOOK_MS
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

  #nextMs(): number {
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
    if (changed || this.#nextMs() <= nowMs || nowMs >= this.#retentionAtMs) this.#onAlarm()
    else this.setAlarm(false)
  }

  #changed(): boolean {
    const { data_version } = this.#store.connection.get<{ data_version: number }>('PRAGMA data_version')!
    const changed = data_version !== this.#dataVersion
    this.#dataVersion = data_version
    return changed
  }
}

function housework(run: () => unknown): Operation {
  let changed: unknown
  return {
    transactional: true,
    durable: false,
    bytes: 0,
    run: () => {
      changed = run()
    },
    concernsOthers: () => changed !== 0,
  }
}
