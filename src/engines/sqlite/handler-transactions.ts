/**
 * Transactional handlers: what a handler writes into the user's tables, what it publishes, and the acknowledgement of
 * its message commit together, on one connection of the event loop, one handler after the other; SQLite has one writer
 * at a time anyway.
 *
 * While a handler runs, it holds the write lock of the file, and everybody else waits: publishers, consumers and the
 * writer thread, which give up with POSTHORN_STORAGE_BUSY after ten seconds. Between two transactions the event loop
 * turns once; and from time to time the lock is left free for as long as those who wait for it sleep between two tries,
 * so that none of them is kept from it for ever. Sessions get the time back during which nobody could renew them.
 *
 * A lease is looked up within the transaction, before the handler begins, and cannot be lost after that. Whose lease it
 * is, the writer thread says: it is asked once, and again when a lease is not found, because sessions are replaced.
 *
 * A handler that outruns its timeout is rolled back here, even if nobody else notices. What a handler leaves behind when
 * it ends, or goes on doing once it was given up, must not become part of the next one's transaction: the connection is
 * only lent to it, and closed where it was given up. The writer thread learns afterwards what was committed.
 */
import type { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import type { EngineOptions, LeaseId } from '../../engine.ts'
import { type Clock, pause } from '../../environment/index.ts'
import { type ErrorCode, PosthornError } from '../../errors.ts'
import type { SqliteAddress } from './address.ts'
import { HandlerConnection, retryWhileBusy } from './handler-connection.ts'
import type { Host } from './host.ts'
import { Loan } from './lent-connection.ts'
import type { Holder } from './protocol.ts'
import type { HeldMessage } from './store/delivery/held-message.ts'
import { describeFailure } from './store/file/failure.ts'

export type TransactOutcome = 'committed' | 'fenced'

/** One message to be handled. */
export interface HandlerTask {
  /** The source's number. */
  readonly source: number
  readonly lease: LeaseId
  readonly offset: number
  readonly subscription: string
  /** How long the handler may run. */
  readonly timeoutMs: number
  readonly work: (transaction: DatabaseSync) => Promise<void>
}

/** While transactions follow each other without a break, the writer thread is told so often. Milliseconds. */
const REPORT_MS = 5
/** The longer somebody has waited for the lock, the longer he sleeps between two tries: see store/connection.ts. */
const HELD_MS_MAX = 10
const BREAK_MS = 1
const LONG_HELD_MS = 100
const LONG_BREAK_MS = 4

/** Reasons for which a handler is given up while it runs. */
const ABANDONED: ReadonlySet<ErrorCode> = new Set([
  'POSTHORN_HANDLER_TIMEOUT',
  'POSTHORN_LEASE_LOST',
  'POSTHORN_CANCELLED',
  'POSTHORN_CLOSED',
])

export class HandlerTransactions {
  readonly #address: SqliteAddress
  readonly #host: Host
  readonly #clock: Clock
  readonly #leaseMs: number
  readonly #holders = new Map<number, Holder>()
  #connection: HandlerConnection | undefined
  #previous: Promise<void> = Promise.resolve()
  #waiting = 0
  /** For how long the lock was held since it was last left free. */
  #heldMs = 0
  #closed = false
  /** What the writer thread does not know yet: leases that ended, by source. */
  readonly #ended = new Map<number, LeaseId[]>()
  #unreported = false
  #reportedAtMs = Number.NEGATIVE_INFINITY

  constructor(address: SqliteAddress, host: Host, { environment, leaseMs }: EngineOptions) {
    this.#address = address
    this.#host = host
    this.#clock = environment.clock
    this.#leaseMs = leaseMs
  }

  run(task: HandlerTask): Promise<TransactOutcome> {
    this.#waiting++
    const outcome = this.#previous.then(() => this.#carryOut(task))
    const next = () => this.#leaveFree()
    this.#previous = outcome.then(next, next)
    return outcome
  }

  #leaveFree(): Promise<void> {
    this.#waiting--
    this.#report()
    // Held time does not pass by waiting.
    if (this.#heldMs < HELD_MS_MAX || !this.#clock.real) return setImmediate()
    const breakMs = this.#heldMs < LONG_HELD_MS ? BREAK_MS : LONG_BREAK_MS
    this.#heldMs = 0
    return pause(this.#clock, breakMs)
  }

  /** The source is closed. */
  forget(source: number): void {
    this.#holders.delete(source)
  }

  /** Rolls back what is under way. */
  close(): void {
    this.#closed = true
    this.#discard()
  }

  async #carryOut(task: HandlerTask): Promise<TransactOutcome> {
    const known = this.#holders.get(task.source)
    if (known && (await this.#attempt(task, known)) === 'committed') return 'committed'
    const holder = await this.#identify(task.source)
    if (!holder || holder.sessionId === known?.sessionId) return 'fenced'
    return this.#attempt(task, holder)
  }

  // Not while the transaction is open: the thread may be waiting for its lock.
  async #identify(source: number): Promise<Holder | undefined> {
    const holder = await this.#host.call<Holder | undefined>({ kind: 'identify', source })
    if (holder) this.#holders.set(source, holder)
    else this.#holders.delete(source)
    return holder
  }

  async #attempt(task: HandlerTask, holder: Holder): Promise<TransactOutcome> {
    const connection = await this.#begin()
    const startedAtMs = this.#clock.elapsedMs()
    try {
      const held = this.#run(() => connection.find(task.lease, holder.sessionId, task.offset))
      if (!held) return 'fenced'
      this.#run(() => connection.beginWork())
      await this.#work(task, connection.database)
      if (this.#closed) throw closed()
      return this.#commit(connection, task, holder, held)
    } catch (error) {
      if (isAbandoned(error)) connection.close()
      throw error
    } finally {
      this.#letGo(connection, this.#clock.elapsedMs() - startedAtMs)
    }
  }

  async #begin(): Promise<HandlerConnection> {
    try {
      return await retryWhileBusy(this.#clock, () => {
        if (this.#closed) throw closed()
        if (this.#host.dead) throw this.#host.dead
        this.#connection ??= new HandlerConnection(this.#address)
        this.#connection.begin()
        return this.#connection
      })
    } catch (error) {
      throw describeFailure(error, this.#address.file)
    }
  }

  // Whatever becomes of the handler: nobody else could ever write to the file again.
  #work({ work, subscription, timeoutMs }: HandlerTask, database: DatabaseSync): Promise<void> {
    const loan = new Loan(database)
    const worked = new Promise<void>((resolve, reject) => {
      const giveUp = () => reject(new PosthornError('POSTHORN_HANDLER_TIMEOUT', { subscription, timeoutMs }))
      const timer = this.#clock.setTimer(timeoutMs, giveUp)
      work(loan.connection)
        .then(resolve, reject)
        .finally(() => timer.cancel())
    })
    return worked.finally(() => loan.end())
  }

  #commit(
    connection: HandlerConnection,
    { source, lease }: HandlerTask,
    { sessionId, row }: Holder,
    held: HeldMessage,
  ): TransactOutcome {
    connection.endWork()
    return this.#run(() => {
      const outcome = connection.acknowledge(row, sessionId, lease, held, this.#clock.now())
      if (outcome === 'fenced') return 'fenced'
      connection.commit()
      if (outcome === 'ended') this.#noteEnded(source, lease)
      this.#unreported = true
      return 'committed'
    })
  }

  // Sessions are renewed three times a lease, and nobody could do it meanwhile.
  #letGo(connection: HandlerConnection, heldMs: number): void {
    connection.rollBack()
    this.#heldMs += heldMs
    if (!connection.isOpen) this.#discard()
    if (heldMs >= this.#leaseMs / 3 && !this.#closed) this.#prolongSessions()
  }

  // As long as a renewal may be late. What is added to a lease instead would add up, and keep the dead alive.
  #prolongSessions(): void {
    try {
      this.#connection ??= new HandlerConnection(this.#address)
      this.#connection.prolongSessions(this.#clock.now() + Math.ceil(this.#leaseMs / 3))
    } catch {
      // Somebody else has the lock by now. He has waited for it, and so gives the others time: see writer/housekeeping.ts.
    }
  }

  #run<T>(action: () => T): T {
    try {
      return action()
    } catch (error) {
      throw describeFailure(error, this.#address.file)
    }
  }

  #noteEnded(source: number, lease: LeaseId): void {
    const leases = this.#ended.get(source)
    if (leases) leases.push(lease)
    else this.#ended.set(source, [lease])
  }

  #report(): void {
    const nowMs = this.#clock.elapsedMs()
    if (!this.#unreported || (this.#waiting > 0 && nowMs < this.#reportedAtMs + REPORT_MS)) return
    this.#unreported = false
    this.#reportedAtMs = nowMs
    for (const [source, leases] of this.#ended) this.#host.send({ kind: 'leasesEnded', source, leases })
    this.#ended.clear()
    this.#host.send({ kind: 'userCommitted' })
  }

  #discard(): void {
    const connection = this.#connection
    this.#connection = undefined
    connection?.close()
  }
}

function isAbandoned(error: unknown): boolean {
  return error instanceof PosthornError && ABANDONED.has(error.code)
}

function closed(): PosthornError {
  return new PosthornError('POSTHORN_CLOSED', { operation: 'the transaction of a handler' })
}
