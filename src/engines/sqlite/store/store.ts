import type {
  DeadLetter,
  DeadLetterQuery,
  EngineAdmin,
  RedriveOptions,
  StartPosition,
  SubscriptionRef,
} from '../../../engine.ts'
import type { SqliteAddress } from '../address.ts'
import * as sql from '../sql/inspection.ts'
import { Sessions } from './consumers/sessions.ts'
import { Subscriptions } from './consumers/subscriptions.ts'
import { Granting } from './delivery/granting.ts'
import type { LeaseRows } from './delivery/leases.ts'
import { Leasing } from './delivery/leasing.ts'
import { Recall } from './delivery/recall.ts'
import { Connection } from './file/connection.ts'
import { migrate, refuseForeign, refuseMoved } from './file/migrate.ts'
import { Admissions } from './limits/admission.ts'
import { Breakers } from './limits/breakers.ts'
import type { Log } from './log/log.ts'
import { Retention } from './log/retention.ts'
import { Cancellation, CancelledOffsets } from './operators/cancellation.ts'
import { Inspection } from './operators/inspection.ts'
import { MessageSearch } from './operators/message-search.ts'
import { OrderedGranting } from './order/ordered-granting.ts'
import { Ownership } from './order/ownership.ts'
import { DeadLetters } from './settlement/dead-letters.ts'
import { type Exceptions, failuresOf } from './settlement/exceptions.ts'
import { settlementParts } from './settlement/parts.ts'
import type { Settling } from './settlement/settling.ts'
import type { Steps } from './settlement/steps.ts'

const REDRIVE_PAGE = 64

/** The admin calls as they run inside of the thread: at once, in a transaction of their own. */
export type StoreAdmin = {
  [Name in Exclude<keyof EngineAdmin, 'applyRetention' | 'cancel'>]: (
    nowMs: number,
    ...values: Parameters<EngineAdmin[Name]>
  ) => Awaited<ReturnType<EngineAdmin[Name]>>
}

/** The file, opened: its parts share one connection, and the caller begins and ends the transactions. */
export class Store implements StoreAdmin {
  readonly connection: Connection
  readonly log: Log
  readonly subscriptionRows: Subscriptions
  readonly exceptions: Exceptions
  readonly leases: LeaseRows
  readonly ownership: Ownership
  readonly granting: Granting
  readonly orderedGranting: OrderedGranting
  readonly steps: Steps
  readonly admissions: Admissions
  readonly breakers: Breakers
  readonly settling: Settling
  readonly recall: Recall
  readonly sessions: Sessions
  readonly retention: Retention
  readonly cancellation: Cancellation
  readonly #deadLetters: DeadLetters
  readonly #inspection: Inspection

  private constructor(connection: Connection) {
    this.connection = connection
    const { log, leases, chains, exceptions, steps, settling } = settlementParts(connection)
    this.log = log
    this.leases = leases
    this.exceptions = exceptions
    this.steps = steps
    this.settling = settling
    const subscriptionRows = new Subscriptions(connection, log)
    this.subscriptionRows = subscriptionRows
    this.ownership = new Ownership(connection, chains)
    const cancelled = new CancelledOffsets(connection)
    const leasing = new Leasing(leases, log, subscriptionRows, exceptions, cancelled)
    this.granting = new Granting(leasing, subscriptionRows, exceptions)
    this.orderedGranting = new OrderedGranting(leasing, subscriptionRows, exceptions, this.ownership)
    this.admissions = new Admissions(connection)
    this.breakers = new Breakers(connection)
    this.recall = new Recall(leases, exceptions, chains)
    this.sessions = new Sessions(connection, this.recall, this.ownership)
    this.retention = new Retention(connection, log, subscriptionRows)
    const search = new MessageSearch(connection, log, subscriptionRows)
    this.cancellation = new Cancellation(connection, log, search, leases, exceptions, this.retention)
    this.#deadLetters = new DeadLetters(connection, chains)
    this.#inspection = new Inspection(connection, log)
  }

  static open(address: SqliteAddress): Store {
    const connection = Connection.open(address, (opened) => {
      refuseForeign(opened)
      refuseMoved(opened)
    })
    try {
      migrate(connection)
      const store = new Store(connection)
      connection.write(() => store.leases.reserveIds())()
      return store
    } catch (error) {
      connection.close()
      throw error
    }
  }

  topics(_nowMs: number) {
    return this.#inspection.topics()
  }

  subscriptions(nowMs: number, topic?: string) {
    return this.#inspection.subscriptions(topic, nowMs)
  }

  consumers(_nowMs: number) {
    return this.sessions.list()
  }

  peek(_nowMs: number, ...values: Parameters<EngineAdmin['peek']>) {
    return this.#inspection.peek(...values)
  }

  checkIntegrity(_nowMs: number) {
    return this.#inspection.problems()
  }

  deadLetters(_nowMs: number, ref: SubscriptionRef, query: DeadLetterQuery): DeadLetter[] {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const rows = this.#deadLetters.page(subscriptionId, query.afterId ?? 0, query.limit)
    return rows.map((row) => {
      const { event, failures: _, key: __, blocks, ...rest } = row
      const state = { ...ref, failures: failuresOf(row), blocking: blocks === 1 }
      return { ...rest, ...state, ...(event && { event: JSON.parse(event) }) }
    })
  }

  redrive(nowMs: number, ref: SubscriptionRef, { ids, perSecond }: RedriveOptions): number {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const stepMs = perSecond === undefined ? 0 : 1000 / perSecond
    let count = 0
    const redrive = (dead: Parameters<Exceptions['redrive']>[1]) => {
      // Without its content a message cannot be delivered again.
      if (dead.event === null) return
      this.exceptions.redrive(subscriptionId, dead, Math.floor(nowMs + count * stepMs), nowMs)
      this.steps.forgetProblems(subscriptionId, dead.partition, dead.offset)
      count++
    }
    if (ids) {
      for (const id of ids) {
        const dead = this.#deadLetters.find(subscriptionId, id)
        if (dead) redrive(dead)
      }
      return count
    }
    // A few at a time: each holds its message.
    let page = this.#deadLetters.page(subscriptionId, 0, REDRIVE_PAGE)
    while (page.length > 0) {
      page.forEach(redrive)
      page = this.#deadLetters.page(subscriptionId, page.at(-1)!.id, REDRIVE_PAGE)
    }
    return count
  }

  deleteDeadLetters(nowMs: number, ref: SubscriptionRef, ids?: readonly number[]): number {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const places = ids?.flatMap((id) => {
      const dead = this.#deadLetters.find(subscriptionId, id)
      return dead ? { subscriptionId, partition: dead.partition, offset: dead.offset } : []
    })
    const deleted = this.#deadLetters.delete(subscriptionId, ids, nowMs)
    if (places) this.steps.tidyUp(places)
    else this.steps.tidyUpAll(subscriptionId)
    return deleted
  }

  seek(nowMs: number, ref: SubscriptionRef, position: StartPosition): void {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const topic = this.log.topic(ref.topic)
    // What was settled is not to be found with steps when it comes again.
    this.steps.tidyUpAll(subscriptionId)
    for (const partition of this.log.partitionNumbers(topic.topicId)) {
      const offset = this.subscriptionRows.locate(topic, partition, position)
      if (offset === undefined) continue
      this.recall.from(subscriptionId, partition, offset, nowMs)
      this.subscriptionRows.moveCursor(subscriptionId, partition, offset)
    }
    // And so for what was passed over, when it comes with another seek.
    this.steps.tidyUpAll(subscriptionId)
  }

  pause(_nowMs: number, ref: SubscriptionRef): void {
    this.subscriptionRows.setPaused(this.subscriptionRows.find(ref).subscriptionId, true)
  }

  resume(_nowMs: number, ref: SubscriptionRef): void {
    this.subscriptionRows.setPaused(this.subscriptionRows.find(ref).subscriptionId, false)
  }

  purge(nowMs: number, name: string): number {
    const topic = this.log.topic(name)
    const { messages } = this.connection.get<{ messages: number }>(sql.COUNT_MESSAGES, topic.topicId)!
    this.connection.run(sql.PURGE_BATCHES, topic.topicId)
    this.connection.run(sql.PURGE_DELAYED, topic.topicId)
    this.connection.run(sql.PURGE_IDS, topic.topicId)
    this.connection.run(sql.PURGE_CANCELLED, topic.topicId)
    for (const subscriptionId of this.subscriptionRows.idsOfTopic(topic.topicId)) {
      this.exceptions.deleteAll(subscriptionId)
      this.steps.purge(subscriptionId)
      for (const partition of this.log.partitionNumbers(topic.topicId)) {
        this.recall.from(subscriptionId, partition, 0, nowMs)
        this.subscriptionRows.moveCursor(subscriptionId, partition, this.log.nextOffset(topic.topicId, partition))
      }
    }
    return messages
  }

  deleteSubscription(_nowMs: number, ref: SubscriptionRef): void {
    this.subscriptionRows.delete(this.subscriptionRows.find(ref))
  }

  deleteTopic(_nowMs: number, name: string): void {
    const { topicId } = this.log.topic(name)
    for (const subscriptionId of this.subscriptionRows.idsOfTopic(topicId)) {
      this.subscriptionRows.delete({ subscriptionId, topicId })
    }
    for (const statement of [
      sql.PURGE_BATCHES,
      sql.PURGE_DELAYED,
      sql.PURGE_IDS,
      sql.PURGE_CANCELLED,
      sql.DELETE_PARTITIONS,
      sql.DELETE_TOPIC,
    ]) {
      this.connection.run(statement, topicId)
    }
  }
}
