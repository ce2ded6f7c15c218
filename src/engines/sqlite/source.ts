import type {
  Admission,
  AdmissionDemand,
  BreakerReport,
  FinishedMessages,
  Grant,
  LeaseId,
  Settlement,
  Source,
  SourceOptions,
} from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import { AdmittedPlaces } from '../admitted-places.ts'
import type { HandlerTransactions, TransactOutcome } from './handler-transactions.ts'
import type { Host } from './host.ts'
import type { WireAdmissions } from './protocol.ts'

const ASK_AGAIN_MS = 1_000

interface WaitingPull {
  resolve(grants: readonly Grant[]): void
  reject(error: unknown): void
}

/** What a source needs of its engine. */
export interface SourceParts {
  readonly host: Host
  /** Undefined where nothing else can open the database. */
  readonly transactions: HandlerTransactions | undefined
  /** Tells the engine's sources apart. */
  readonly number: number
  onClose(): void
}

/** This process's share of a subscription: passes pulls and settlements on to the writer thread. */
export class SqliteSource implements Source {
  readonly #host: Host
  readonly #number: number
  readonly #parts: SourceParts
  readonly #options: SourceOptions
  /** Undefined when no limit counts messages in flight. */
  readonly #places: AdmittedPlaces | undefined
  #waiting: WaitingPull | undefined
  #pulls = 0
  /** Why nothing can ever be pulled again. */
  #gone: PosthornError | undefined
  #closing: Promise<void> | undefined

  private constructor(parts: SourceParts, options: SourceOptions) {
    this.#host = parts.host
    this.#number = parts.number
    this.#parts = parts
    this.#options = options
    if (options.limits.some(({ kind }) => kind === 'inFlight')) this.#places = new AdmittedPlaces()
  }

  static async open(parts: SourceParts, options: SourceOptions): Promise<SqliteSource> {
    const source = new SqliteSource(parts, options)
    const { host, number } = parts
    const { topic, subscription, limits, handlerTimeoutMs } = options
    const wire = { topic, subscription, limits }
    await host.call({ kind: 'openSource', source: number, options: wire })
    host.listen(number, handlerTimeoutMs, wire, {
      onGrants: (grants, pull) => source.#receive(grants, pull),
      onPullFailed: (error, pull) => source.#fail(error, pull),
      onGone: (error) => {
        source.#gone = error
      },
      onCancelled: (lease, offset) => options.onCancelled(lease, offset),
      onLeasesLost: (leases, reason) => options.onLeasesLost(leases, reason),
      onSurplus: (partitions) => {
        if (!source.#closing) options.onSurplus(partitions)
      },
      onDamage: (error) => options.onDamage(error),
    })
    return source
  }

  get leasedUntilMs(): number {
    return this.#host.leasedUntilMs
  }

  pull(limits: { messagesMax: number; bytesMax: number }, signal: AbortSignal): Promise<readonly Grant[]> {
    if (this.#closing || signal.aborted) return Promise.resolve([])
    const failure = this.#gone ?? this.#host.dead
    if (failure) return Promise.reject(failure)
    const pull = ++this.#pulls
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        this.#host.send({ kind: 'unpull', source: this.#number, pull })
        this.#take()?.resolve([])
      }
      const settled = () => signal.removeEventListener('abort', giveUp)
      this.#waiting = {
        resolve: (grants) => {
          settled()
          resolve(grants)
        },
        reject: (error) => {
          settled()
          reject(error)
        },
      }
      signal.addEventListener('abort', giveUp, { once: true })
      this.#host.send({ kind: 'pull', source: this.#number, pull, ...limits })
    })
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    if (this.#closing) return settlements.map(({ lease }) => lease)
    return this.#host.call({ kind: 'settle', source: this.#number, settlements })
  }

  async admit(
    demands: readonly AdmissionDemand[],
    finished: readonly FinishedMessages[],
  ): Promise<readonly Admission[]> {
    if (this.#closing) return demands.map(() => ({ startsInMs: [], againInMs: ASK_AGAIN_MS }))
    const { sessionId, admissions } = await this.#host.call<WireAdmissions>({
      kind: 'admit',
      source: this.#number,
      demands,
      finished: this.#places?.heldOf(finished) ?? [],
      sentAtMs: this.#host.nowMs,
    })
    this.#places?.update(finished, demands, admissions, sessionId)
    return admissions
  }

  async reportBreaker(report: BreakerReport | undefined): Promise<void> {
    if (!this.#closing) await this.#host.call<void>({ kind: 'reportBreaker', source: this.#number, report })
  }

  async steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    const results = this.#closing
      ? undefined
      : await this.#host.call<Map<string, string> | undefined>({ kind: 'steps', source: this.#number, lease, offset })
    return results ?? this.#refuseLost()
  }

  async recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void> {
    const source = this.#number
    const held =
      !this.#closing && (await this.#host.call<boolean>({ kind: 'recordStep', source, lease, offset, name, result }))
    if (!held) this.#refuseLost()
  }

  async transact(
    lease: LeaseId,
    offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<TransactOutcome> {
    const { transactions } = this.#parts
    if (!transactions) {
      const feature = 'run a handler in a transaction, as nothing else can open a database in memory'
      throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: 'sqlite::memory:', feature })
    }
    if (this.#closing) return 'fenced'
    const { subscription, handlerTimeoutMs: timeoutMs } = this.#options
    return transactions.run({ source: this.#number, lease, offset, subscription, timeoutMs, work })
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#take()?.resolve([])
    try {
      await this.#host.call<void>({ kind: 'closeSource', source: this.#number })
    } finally {
      this.#host.ignore(this.#number)
      this.#parts.transactions?.forget(this.#number)
      this.#parts.onClose()
    }
  }

  // What was under way while its pull was given up is nobody's: the thread takes it back when it hears of that.
  #receive(grants: readonly Grant[], pull: number): void {
    if (pull === this.#pulls) this.#take()?.resolve(grants)
  }

  #refuseLost(): never {
    const { subscription } = this.#options
    throw new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason: 'it is not held by this consumer any more' })
  }

  #fail(error: PosthornError, pull = this.#pulls): void {
    if (pull === this.#pulls) this.#take()?.reject(error)
  }

  #take(): WaitingPull | undefined {
    const waiting = this.#waiting
    this.#waiting = undefined
    return waiting
  }
}
