import { randomUUID } from 'node:crypto'
import type { EngineOptions } from '../../engine.ts'
import type { Clock, Logger } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import type { PostgresAddress } from './address.ts'
import { Checks, type ChoresParts, Cleaning, Departures, Promotions, QueueCleaning, StepSweeping } from './chores.ts'
import { Losses } from './consumers/losses.ts'
import { Session } from './consumers/session.ts'
import { Watch } from './consumers/watch.ts'
import type { Core } from './core.ts'
import { Database } from './database/database.ts'
import { Listener } from './database/listener.ts'
import { migrate } from './database/migrate.ts'
import { SCHEMA_NOTICE, SchemaWatch } from './database/schema-watch.ts'
import { Granting } from './delivery/granting.ts'
import { Turns } from './delivery/turns.ts'
import { Wakes } from './delivery/wakes.ts'
import { Housekeeping } from './housekeeping.ts'
import { Admissions } from './limits/admissions.ts'
import { Breakers } from './limits/breakers.ts'
import { Appender } from './log/append.ts'
import type { Stored } from './log/append-work.ts'
import { BatchReader } from './log/batches.ts'
import { Delayed } from './log/delayed.ts'
import { LogIndex } from './log/log-index.ts'
import { Retention } from './log/retention.ts'
import { Topics } from './log/topics.ts'
import { refuseUnfinishedMove } from './moving/unfinished.ts'
import { PostgresAdmin } from './operators/admin.ts'
import { Chains } from './order/chains.ts'
import { HandlerTransactions } from './outbox/handler-transactions.ts'
import { Outbox } from './outbox/outbox.ts'
import { Relay } from './outbox/relay.ts'
import { DeadLetters } from './settlement/dead-letters.ts'
import { SetAside } from './settlement/set-aside.ts'
import { Settling } from './settlement/settling.ts'
import { Steps } from './settlement/steps.ts'
import type { PostgresSource } from './source.ts'
import type { SourceKey } from './source-turns.ts'
import { WakeUps } from './wake-ups.ts'

/** Something was committed to the outbox. */
const OUTBOX_NOTICE = 'o'

/** Everything that an engine is made of, wired up. */
export class Parts implements Core {
  readonly clock: Clock
  readonly logger: Logger
  readonly database: Database
  readonly hasNotices: boolean
  readonly sources = new Set<PostgresSource>()
  readonly leaving = new Set<PostgresSource>()
  readonly wakes: Wakes
  readonly turns: Turns
  readonly chains = new Chains()
  readonly steps = new Steps()
  readonly setAside = new SetAside()
  readonly deadLetters = new DeadLetters(this.chains, this.steps)
  readonly log = new LogIndex()
  readonly batches = new BatchReader()
  readonly settling: Settling
  readonly granting: Granting
  readonly topics: Topics
  readonly appender: Appender
  readonly admissions: Admissions
  readonly breakers: Breakers
  readonly session: Session
  readonly transactions: HandlerTransactions
  readonly wakeUps: WakeUps
  readonly admin: PostgresAdmin
  #isClosed = false
  /** The tables are those of a newer version. */
  #outdated: PosthornError | undefined
  readonly #watch: Watch
  readonly #listener: Listener | undefined
  readonly #relay: Relay
  readonly #delayed: Delayed
  readonly #promotions: Promotions
  readonly #queueCleaning: QueueCleaning
  readonly #housekeeping: Housekeeping
  readonly #schemaWatch: SchemaWatch
  #outbox: Outbox | undefined

  private constructor(database: Database, { environment, leaseMs }: EngineOptions) {
    const { clock, logger } = environment
    this.clock = clock
    this.logger = logger
    this.database = database
    this.#delayed = new Delayed(database)
    this.hasNotices = !database.address.transactionPooling
    this.wakes = new Wakes(clock)
    this.turns = new Turns(database, clock, () => {
      this.batches.forgetAll()
      this.log.forgetAll()
      this.admissions.serverChanged()
      for (const source of this.sources) source.serverChanged()
      this.#delayed.forgetAll()
    })
    this.settling = new Settling(this)
    this.granting = new Granting(this)
    this.topics = new Topics(this)
    this.appender = new Appender({ database, topics: this.topics, onStored: (stored) => this.stored(stored) })
    this.admissions = new Admissions(database, clock)
    this.breakers = new Breakers(database)
    const losses = new Losses(database, this.turns, this.settling)
    const onLost = ({ reason }: { readonly reason: string }) => this.#sessionLost(reason)
    this.session = new Session({ database, clock, logger, leaseMs, losses, onLost })
    this.#watch = new Watch({
      rows: database,
      clock,
      losses,
      leaseMs,
      ownSession: () => this.session.id,
      onGivenUp: (subscriptionIds) => {
        for (const id of subscriptionIds) this.wakeUps.subscription(id)
      },
      onTrouble: (error) => {
        const { code } = error as { code?: string }
        logger.warn(`Whether consumers have died could not be looked at, which is tried again: ${error.message}`, {
          code,
        })
      },
    })
    this.#listener = this.hasNotices ? this.#newListener() : undefined
    this.wakeUps = new WakeUps(this.wakes, this.#listener, (id) => this.#check(id))
    this.transactions = new HandlerTransactions({
      database,
      turns: this.turns,
      settling: this.settling,
      onSettled: ({ kind, topicId, ordered, subscriptionId }) => {
        if (kind === 'queue') this.#queueCleaning.settled(topicId)
        if (ordered) this.wakeUps.subscription(subscriptionId)
      },
    })
    this.#relay = this.#newRelay()
    const chores: ChoresParts = {
      clock,
      delayed: this.#delayed,
      retention: new Retention(database),
      admissions: this.admissions,
      onStored: (stored) => this.stored(stored),
    }
    this.#promotions = new Promotions(chores, () => void this.#promotions.run().catch(() => {}))
    this.#queueCleaning = new QueueCleaning(chores)
    this.#schemaWatch = new SchemaWatch(database, (error) => this.#retire(error))
    const checks = new Checks(() => this.#checkAll(), this.hasNotices)
    const departures = new Departures(this.leaving)
    this.#housekeeping = new Housekeeping(clock, logger, [
      this.#schemaWatch,
      this.#promotions,
      new Cleaning(chores),
      checks,
      departures,
      new StepSweeping(this),
    ])
    this.admin = new PostgresAdmin({
      ...this.#adminParts(),
      applyRetention: () => chores.retention.applyRetention(clock.now()),
    })
  }

  static async open(address: PostgresAddress, options: EngineOptions): Promise<Parts> {
    const database = new Database(address)
    try {
      await migrate(database)
      await refuseUnfinishedMove(database)
      const parts = new Parts(database, options)
      await parts.#start()
      return parts
    } catch (error) {
      await database.close()
      throw error
    }
  }

  get outbox(): Outbox {
    return this.#outbox!
  }

  requireOpen(operation: string): void {
    if (this.#isClosed) throw new PosthornError('POSTHORN_CLOSED', { operation })
    if (this.#outdated) throw this.#outdated
  }

  /** Nothing new is taken. */
  close(): void {
    this.#isClosed = true
  }

  hasSuspectOut(): boolean {
    return [...this.sources].some((source) => source.hasSuspectOut)
  }

  changed({ subscriptionId }: SourceKey): void {
    this.wakeUps.subscription(subscriptionId)
  }

  settledInQueue({ topicId }: SourceKey): void {
    this.#queueCleaning.settled(topicId)
  }

  /** Messages were committed to the log, or are to enter it later. */
  stored({ batches, dueAtMs }: Stored): void {
    this.log.added(batches)
    if (this.sources.size > 0) this.batches.offer(batches)
    for (const topicId of new Set(batches.map((batch) => batch.topicId))) this.wakeUps.topic(topicId)
    this.#promotions.expect(dueAtMs)
  }

  /** With held time: resolves when all is done that the clock has brought about. */
  async caughtUp(): Promise<void> {
    if (this.clock.real) return
    await this.session.idle()
    await this.#watch.idle()
    await this.#promotions.run()
    await this.#relay.poll()
    await this.#queueCleaning.idle()
    await this.#housekeeping.catchUp()
  }

  /** Waits for no answer of the server any more. */
  cutOff(): void {
    this.database.cutOff(new PosthornError('POSTHORN_CLOSED', { operation: 'a call' }))
  }

  /** Ends what was begun, and gives back what is held. */
  async stop(): Promise<void> {
    this.transactions.close()
    await this.#relay.stop()
    await this.#queueCleaning.stop()
    await this.#stopLooking()
    try {
      await this.session.stop()
    } finally {
      await this.#listener?.close()
      await this.database.close()
    }
  }

  /** As the death of the process would. */
  async kill(): Promise<void> {
    this.transactions.close()
    await this.session.kill()
    await this.#relay.stop()
    await this.#queueCleaning.stop()
    await this.#stopLooking()
    await this.#listener?.close()
    await this.database.close()
  }

  async #start(): Promise<void> {
    this.#outbox = await Outbox.open({
      database: this.database,
      clock: this.clock,
      topics: this.topics,
      onAppended: (told) => this.#relay.expect(told),
    })
    await this.#listener?.start()
    await this.#watch.start()
    this.#relay.start()
    this.#housekeeping.start()
  }

  /** With held time, whoever asks is told of a store in which everything has been done that was asked for before. */
  async #begin(operation: string): Promise<void> {
    this.requireOpen(operation)
    if (this.clock.real) return
    await this.caughtUp()
    this.wakes.all()
    // The pulls that were woken look again.
    await this.database.answer()
    await Promise.all(Array.from(this.sources, (source) => source.looked()))
    await this.turns.idle()
  }

  async #stopLooking(): Promise<void> {
    this.#promotions.stop()
    await this.#housekeeping.stop()
    await this.#watch.stop()
  }

  #newListener(): Listener {
    return new Listener({
      database: this.database,
      clock: this.clock,
      onNotice: (notice) => this.#hear(notice),
      onGap: () => {
        this.wakes.all()
        this.#checkAll()
        this.#relay.wake()
      },
    })
  }

  #newRelay(): Relay {
    const { database, clock, logger, hasNotices } = this
    return new Relay({
      database,
      clock,
      logger,
      hasNotices,
      name: randomUUID(),
      store: (rows, groups) => this.appender.storeWithin(rows, groups, clock.now(), { whateverBacklog: true }),
      onStored: (stored) => this.stored(stored),
    })
  }

  #adminParts() {
    const { database, clock, turns, topics, settling, breakers, batches, setAside, deadLetters, chains, steps } = this
    return {
      ...{ database, clock, turns, topics, settling, breakers, batches, setAside, deadLetters, chains, steps },
      begin: (operation: string) => this.#begin(operation),
      wake: (topicId: number) => this.wakeUps.topic(topicId),
      wakeSubscription: (subscriptionId: number) => this.wakeUps.subscription(subscriptionId),
    }
  }

  #sessionLost(reason: string): void {
    for (const source of this.sources) source.sessionLost(reason)
    this.wakes.all()
  }

  #hear(notice: string): void {
    if (notice === OUTBOX_NOTICE) this.#relay.wake()
    else if (notice === SCHEMA_NOTICE) void this.#schemaWatch.run().catch(() => {})
    else this.wakeUps.heard(notice)
  }

  /** Does nothing any more to tables that others understand better. What is held comes back to these after the lease. */
  #retire(error: PosthornError): void {
    if (this.#outdated || this.#isClosed) return
    this.#outdated = error
    this.logger.error(`${error.message} Nothing is published or consumed until then.`, { code: error.code })
    this.database.refuse(error)
    this.transactions.close()
    void this.session.kill()
    for (const source of this.sources) source.sessionLost('a newer version of Posthorn has changed the tables')
    void this.#relay.stop()
    void this.#queueCleaning.stop()
    void this.#stopLooking()
    this.wakes.all()
  }

  #checkAll(): void {
    for (const source of this.sources) source.check()
  }

  #check(subscriptionId: number): void {
    for (const source of this.sources) if (source.key.subscriptionId === subscriptionId) source.check()
  }
}
