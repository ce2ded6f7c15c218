/**
 * This process's session, under whose id its sources hold leases, partitions and places.
 *
 * States: none, until the first source is opened; living; lost, from when it is found not to be stored any more until
 * another one is, which takes its place at once: then `onLost` is called, and all that was held under the old id is
 * void; ended, which is final. While the database fails, nothing changes: the session is renewed when it answers again,
 * unless somebody has given it up by then.
 *
 * With a real clock a thread renews it, so that user code that blocks the event loop costs no leases. Should the thread
 * fail, the event loop does it.
 */
import { hostname } from 'node:os'
import { type Clock, type Logger, OnceAMinute, type Timer } from '../../../environment/index.ts'
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import * as sql from '../sql/sessions.ts'
import { BEAT_MS, Life } from './life.ts'
import type { Losses } from './losses.ts'
import { type Renewal, type RenewalListener, Renewer } from './renewer.ts'
import { ThreadRenewal } from './thread-renewal.ts'

export interface SessionOptions {
  readonly database: Database
  readonly clock: Clock
  readonly logger: Logger
  readonly leaseMs: number
  readonly losses: Losses
  /** All that was held under the session is lost. Another one has taken its place. */
  onLost(lost: { readonly sessionId: string; readonly reason: string }): void
}

export class Session implements RenewalListener {
  readonly #options: SessionOptions
  readonly #life: Life
  #id = ''
  #renewal: Renewal | undefined
  #starting: Promise<void> | undefined
  #replacing: Promise<void> | undefined
  #beat: Timer | undefined
  #isEnded = false
  readonly #warning: OnceAMinute

  constructor(options: SessionOptions) {
    this.#options = options
    this.#life = new Life(options.clock)
    this.#warning = new OnceAMinute(options.clock)
  }

  /** Empty before the start. */
  get id(): string {
    return this.#id
  }

  /** As `Source.leasedUntilMs`. Held time stops for nobody. */
  get leasedUntilMs(): number {
    return this.#options.clock.real ? this.#life.leasedUntilMs : Number.POSITIVE_INFINITY
  }

  /** Stores the session, unless it is already. Rejects with a coded error when it cannot; then it may be tried again. */
  start(): Promise<void> {
    this.#starting ??= this.#start().catch((error: unknown) => {
      this.#starting = undefined
      throw error
    })
    return this.#starting
  }

  /** A silent event loop is trusted for so long. */
  trust(handlerTimeoutMs: number): void {
    this.#life.trust(handlerTimeoutMs)
  }

  /**
   * Whether the session of this id is stored; it remains so until the transaction of `rows` is over. To be asked in the
   * turn that enlists a source, and answered no, by `check` once the turn is over.
   */
  async isStored(rows: Queryable, sessionId: string = this.#id): Promise<boolean> {
    const [found] = await rows.rows<{ consumes: boolean }>(sql.sessions.keep, sessionId)
    if (found?.consumes === false) await rows.run(sql.sessions.consume, sessionId)
    return found !== undefined
  }

  /** Looks whether the session is still stored, and replaces it when it is not. Resolves with one that was. */
  async check(): Promise<void> {
    const id = this.#id
    if (this.#isEnded || id === '') return
    const found = await this.#options.database.rows(sql.sessions.find, id)
    if (found.length === 0) await this.#replace(id)
  }

  /** Resolves when nothing is under way that the clock has brought about. */
  async idle(): Promise<void> {
    await this.#renewal?.idle()
    await this.#replacing?.catch(() => {})
  }

  /** Gives back what is still held. Rejects when it could not; the others will take it back after the lease. */
  async stop(): Promise<void> {
    if (this.#isEnded) return
    this.#end()
    await this.#starting?.catch(() => {})
    await this.#renewal?.end()
    await this.#replacing?.catch(() => {})
    if (this.#id !== '') await this.#options.losses.end(this.#id)
  }

  /** As the death of the process would. */
  async kill(): Promise<void> {
    this.#end()
    await this.#renewal?.kill()
  }

  onLost(sessionId: string): Promise<void> {
    return this.#replace(sessionId).catch((error: Error) => this.onTrouble(error))
  }

  // It is tried several times a lease: said once a minute.
  onTrouble(error: Error): void {
    if (this.#isEnded || !this.#warning.isDue()) return
    const { code } = error as { code?: string }
    this.#options.logger.warn(`The session could not be renewed, which is tried again: ${error.message}`, { code })
  }

  async #start(): Promise<void> {
    await this.#store()
    if (this.#isEnded) return
    // Held time is not told by a beating heart: who renews is alive.
    if (this.#options.clock.real) this.#keepBeating()
    else this.#life.trust(Number.POSITIVE_INFINITY)
    this.#renewal = this.#options.clock.real ? this.#newThread() : this.#newRenewer()
    this.#renewal.keep(this.#id)
  }

  async #store(): Promise<void> {
    const { database, clock, leaseMs } = this.#options
    const sent = { atMs: clock.now(), elapsedMs: clock.elapsedMs() }
    const values = [sent.atMs, leaseMs, hostname(), process.pid]
    const [row] = await database.rows<{ sessionId: string }>(sql.sessions.start, ...values)
    this.#id = row!.sessionId
    this.#life.extend(sent, leaseMs)
  }

  /** `sessionId`: the one that is lost. */
  #replace(sessionId: string): Promise<void> {
    if (this.#isEnded || this.#id !== sessionId) return Promise.resolve()
    this.#replacing ??= this.#replaceNow(sessionId).finally(() => {
      this.#replacing = undefined
    })
    return this.#replacing
  }

  async #replaceNow(sessionId: string): Promise<void> {
    const reason = this.#life.whyLost()
    await this.#store()
    this.#renewal?.keep(this.#id)
    this.#options.onLost({ sessionId, reason })
  }

  #newThread(): Renewal {
    const { database, clock, leaseMs } = this.#options
    return new ThreadRenewal({
      address: database.address,
      clock,
      life: this.#life,
      leaseMs,
      listener: this,
      onEnd: (error) => this.#goOnWithoutThread(error),
    })
  }

  #newRenewer(): Renewal {
    const { database, clock, leaseMs } = this.#options
    return new Renewer(database, clock, this.#life, leaseMs, this)
  }

  #goOnWithoutThread(error: Error): void {
    if (this.#isEnded) return
    const problem = `The thread that renews the session failed, so the event loop does it: ${error.message}`
    this.#options.logger.warn(problem)
    this.#renewal = this.#newRenewer()
    this.#renewal.keep(this.#id)
  }

  #keepBeating(): void {
    this.#life.beat()
    this.#beat = this.#options.clock.setTimer(BEAT_MS, () => this.#keepBeating())
  }

  #end(): void {
    this.#isEnded = true
    this.#beat?.cancel()
  }
}
