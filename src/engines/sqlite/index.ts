/**
 * The SQLite engine: everything in one file, shared by any number of processes of one machine.
 *
 * host.ts and source.ts live on the event loop and only pass messages; writer/ is the thread that does the work, and
 * integrity/ one that checks the file; store/ is the arithmetic, one file a concern, on the tables of sql/. What shares
 * a transaction with the user's own tables is done on the event loop: publishing (user-transaction.ts), and handlers
 * (handler-transactions.ts).
 */
import type {
  AppendGroup,
  AppendOptions,
  AppendOutcome,
  CancelOutcome,
  Capabilities,
  ConnectEngine,
  Engine,
  EngineAdmin,
  EngineOptions,
  Source,
  SourceOptions,
  SubscriptionConfig,
  TopicConfig,
} from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import { IN_MEMORY, parseSqliteAddress, type SqliteAddress } from './address.ts'
import { HandlerTransactions } from './handler-transactions.ts'
import { Host } from './host.ts'
import { IntegrityChecks } from './integrity/checks.ts'
import type { WireOutcome } from './protocol.ts'
import { SqliteSource } from './source.ts'
import type { CancelStep } from './store/operators/cancellation.ts'
import type { SearchProgress } from './store/operators/message-search.ts'
import { UserTransactions } from './user-transaction.ts'
import { packGroup } from './wire-group.ts'

/** Opens `sqlite:path`, `sqlite::memory:`, with an optional `?maxBytes=` that bounds the file. */
export const connectSqlite: ConnectEngine = async (url, options) => {
  const address = parseSqliteAddress(String(url))
  return new SqliteEngine(await Host.open(address, options), address, options)
}

/** Ends the engine as the death of its process would. For tests of what happens then. */
export async function abandonSqliteEngine(engine: Engine): Promise<void> {
  if (engine instanceof SqliteEngine) await engine.abandon()
}

const ADMIN_OPERATIONS = [
  'topics',
  'subscriptions',
  'consumers',
  'peek',
  'deadLetters',
  'redrive',
  'deleteDeadLetters',
  'seek',
  'pause',
  'resume',
  'purge',
  'deleteSubscription',
  'deleteTopic',
] as const satisfies readonly Exclude<keyof EngineAdmin, OwnOperation>[]

/** Those that take more than a call to the thread. */
type OwnOperation = 'cancel' | 'applyRetention' | 'checkIntegrity'

class SqliteEngine implements Engine {
  readonly name = 'sqlite'
  readonly capabilities: Capabilities
  readonly admin: EngineAdmin
  readonly #host: Host
  readonly #transactions: UserTransactions
  /** Undefined where nothing else can open the database. */
  readonly #handlers: HandlerTransactions | undefined
  readonly #integrityChecks: IntegrityChecks
  readonly #partitions = new Map<string, number>()
  readonly #sources = new Set<Source>()
  #nextSource = 1
  #keylessTurn = 0
  #closing: Promise<void> | undefined

  constructor(host: Host, address: SqliteAddress, options: EngineOptions) {
    const { environment } = options
    const onDisk = host.file !== IN_MEMORY
    this.capabilities = {
      durable: onDisk,
      multiProcess: onDisk,
      transactionalAppend: onDisk,
      transactionalHandlers: onDisk,
    }
    this.#host = host
    const onCommit = () => this.#host.send({ kind: 'userCommitted' })
    this.#transactions = new UserTransactions(host.file, environment.clock, onCommit)
    if (onDisk) this.#handlers = new HandlerTransactions(address, host, options)
    const calls = Object.fromEntries(
      ADMIN_OPERATIONS.map((operation) => [
        operation,
        (...values: unknown[]) => this.#host.call({ kind: 'admin', operation, values }),
      ]),
    ) as Omit<EngineAdmin, OwnOperation>
    this.#integrityChecks = new IntegrityChecks(host.file)
    this.admin = {
      ...calls,
      cancel: (topic, id) => this.#cancel(topic, id),
      applyRetention: () => this.#applyRetention(),
      checkIntegrity: () => this.#checkIntegrity(),
    }
  }

  async ensureTopic(config: TopicConfig): Promise<void> {
    await this.#host.call<void>({ kind: 'ensureTopic', config })
    this.#partitions.set(config.topic, config.partitions)
  }

  ensureSubscription(config: SubscriptionConfig): Promise<void> {
    return this.#host.call({ kind: 'ensureSubscription', config })
  }

  async append(groups: readonly AppendGroup[], options: AppendOptions = {}): Promise<readonly AppendOutcome[]> {
    await this.#learnPartitions(groups)
    const packed = groups.map((group) => packGroup(group, this.#partitions.get(group.topic) ?? 1, this.#keylessTurn++))
    const outcomes = await this.#host.call<readonly WireOutcome[]>({
      kind: 'append',
      groups: packed.map(({ group }) => group),
      atomic: options.atomic === true,
    })
    return packed.map(({ group, unpack }, index) => {
      const outcome = unpack(outcomes[index]!)
      // The topic may have been made anew since: ask again next time.
      if ('refused' in outcome && isAboutTopic(outcome.refused)) this.#partitions.delete(group.topic)
      return outcome
    })
  }

  async appendIn(transaction: unknown, group: AppendGroup): Promise<AppendOutcome> {
    if (!this.capabilities.transactionalAppend) {
      const feature = 'publish in a transaction of yours, as nothing else can open a database in memory'
      throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: 'sqlite::memory:', feature })
    }
    return this.#transactions.append(transaction, group.topic, (partitions) =>
      packGroup(group, partitions, this.#keylessTurn++),
    )
  }

  async openSource(options: SourceOptions): Promise<Source> {
    const onClose = () => this.#sources.delete(source)
    const parts = { host: this.#host, transactions: this.#handlers, number: this.#nextSource++, onClose }
    const source: Source = await SqliteSource.open(parts, options)
    this.#sources.add(source)
    return source
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  abandon(): Promise<void> {
    this.#handlers?.close()
    return this.#host.kill()
  }

  async #close(): Promise<void> {
    // Ending the session gives back what a source could not.
    await Promise.allSettled([...this.#sources].map((source) => source.close()))
    this.#handlers?.close()
    await this.#integrityChecks.close()
    await this.#host.close()
  }

  // Where its id has to be looked for in the whole backlog, a part of it a call.
  async #cancel(topic: string, id: string): Promise<CancelOutcome> {
    let resume: SearchProgress | undefined
    for (;;) {
      const values = [topic, id, resume]
      const step = await this.#host.call<CancelStep>({ kind: 'admin', operation: 'cancel', values })
      if ('outcome' in step) return step.outcome
      resume = step.resume
    }
  }

  // A few batches a call, until there are none left, so that publishers get their turn in between.
  async #applyRetention(): Promise<number> {
    let total = 0
    for (;;) {
      const deleted = await this.#host.call<number>({ kind: 'admin', operation: 'applyRetention', values: [] })
      if (deleted === 0) return total
      total += deleted
    }
  }

  // Nobody else can open a database in memory, so there its own thread has to look.
  async #checkIntegrity(): Promise<readonly string[]> {
    if (!this.capabilities.multiProcess)
      return this.#host.call({ kind: 'admin', operation: 'checkIntegrity', values: [] })
    if (this.#host.dead) throw this.#host.dead
    return this.#integrityChecks.run()
  }

  // Another process may have made the topic.
  async #learnPartitions(groups: readonly AppendGroup[]): Promise<void> {
    if (groups.every(({ topic }) => this.#partitions.has(topic))) return
    for (const { topic, partitions } of await this.admin.topics()) {
      this.#partitions.set(topic, partitions.filter(({ priority }) => priority === 'normal').length)
    }
  }
}

// Learning the partitions anew costs a look at every topic, which a full backlog is no reason for.
function isAboutTopic(error: Error): boolean {
  if (!(error instanceof PosthornError)) return false
  return error.code === 'POSTHORN_TOPIC_NOT_FOUND' || error.code === 'POSTHORN_TOPIC_CONFLICT'
}
