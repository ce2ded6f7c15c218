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
import { Connection } from './connection.ts'
import { Exceptions, failuresOf } from './exceptions.ts'
import { Granting } from './granting.ts'
import { Inspection } from './inspection.ts'
import { LeaseRows } from './leases.ts'
import { Log } from './log.ts'
import { MessageReader } from './message-reader.ts'
import { migrate, refuseForeign } from './migrate.ts'
import { Recall } from './recall.ts'
import { Retention } from './retention.ts'
import { Sessions } from './sessions.ts'
import { Settling } from './settling.ts'
import { Subscriptions } from './subscriptions.ts'

const REDRIVE_PAGE = 64

/** The admin calls as they run inside of the thread: at once, in a transaction of their own. */
export type StoreAdmin = {
  [Name in Exclude<keyof EngineAdmin, 'applyRetention'>]: (
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
  readonly granting: Granting
  readonly settling: Settling
  readonly recall: Recall
  readonly sessions: Sessions
  readonly retention: Retention
  readonly #inspection: Inspection

  private constructor(connection: Connection) {
    this.connection = connection
    this.log = new Log(connection)
    this.subscriptionRows = new Subscriptions(connection, this.log)
    this.exceptions = new Exceptions(connection, new MessageReader(this.log))
    this.leases = new LeaseRows(connection)
    this.granting = new Granting(this.leases, this.log, this.subscriptionRows, this.exceptions)
    this.settling = new Settling(this.leases, this.exceptions)
    this.recall = new Recall(this.leases, this.exceptions)
    this.sessions = new Sessions(connection, this.recall)
    this.retention = new Retention(connection, this.subscriptionRows)
    this.#inspection = new Inspection(connection, this.log)
  }

  static open(address: SqliteAddress): Store {
    const connection = Connection.open(address, refuseForeign)
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
    const rows = this.exceptions.deadLetters(subscriptionId, query.afterId ?? 0, query.limit)
    return rows.map((row) => {
      const { event, failures: _, ...rest } = row
      const { topic, subscription } = ref
      return { ...rest, topic, subscription, failures: failuresOf(row), ...(event && { event: JSON.parse(event) }) }
    })
  }

  redrive(nowMs: number, ref: SubscriptionRef, { ids, perSecond }: RedriveOptions): number {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const stepMs = perSecond === undefined ? 0 : 1000 / perSecond
    let count = 0
    const redrive = (dead: Parameters<Exceptions['redrive']>[1]) => {
      // Without its content a message cannot be delivered again.
      if (dead.event === null) return
      this.exceptions.redrive(subscriptionId, dead, Math.floor(nowMs + count * stepMs))
      count++
    }
    if (ids) {
      for (const id of ids) {
        const dead = this.exceptions.deadLetter(subscriptionId, id)
        if (dead) redrive(dead)
      }
      return count
    }
    // A few at a time: each holds its message.
    let page = this.exceptions.deadLetters(subscriptionId, 0, REDRIVE_PAGE)
    while (page.length > 0) {
      page.forEach(redrive)
      page = this.exceptions.deadLetters(subscriptionId, page.at(-1)!.id, REDRIVE_PAGE)
    }
    return count
  }

  deleteDeadLetters(_nowMs: number, ref: SubscriptionRef, ids?: readonly number[]): number {
    return this.exceptions.deleteDeadLetters(this.subscriptionRows.find(ref).subscriptionId, ids)
  }

  seek(_nowMs: number, ref: SubscriptionRef, position: StartPosition): void {
    const { subscriptionId } = this.subscriptionRows.find(ref)
    const topic = this.log.topic(ref.topic)
    for (let partition = 0; partition < topic.partitions; partition++) {
      const offset = this.subscriptionRows.locate(topic, partition, position)
      if (offset === undefined) continue
      this.recall.from(subscriptionId, partition, offset)
      this.subscriptionRows.moveCursor(subscriptionId, partition, offset)
    }
  }

  pause(_nowMs: number, ref: SubscriptionRef): void {
    this.subscriptionRows.setPaused(this.subscriptionRows.find(ref).subscriptionId, true)
  }

  resume(_nowMs: number, ref: SubscriptionRef): void {
    this.subscriptionRows.setPaused(this.subscriptionRows.find(ref).subscriptionId, false)
  }

  purge(_nowMs: number, name: string): number {
    const topic = this.log.topic(name)
    const { messages } = this.connection.get<{ messages: number }>(sql.COUNT_MESSAGES, topic.topicId)!
    this.connection.run(sql.PURGE_BATCHES, topic.topicId)
    this.connection.run(sql.PURGE_DELAYED, topic.topicId)
    this.connection.run(sql.PURGE_IDS, topic.topicId)
    for (const subscriptionId of this.subscriptionRows.idsOfTopic(topic.topicId)) {
      this.exceptions.deleteAll(subscriptionId)
      for (let partition = 0; partition < topic.partitions; partition++) {
        this.recall.from(subscriptionId, partition, 0)
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
      sql.DELETE_PARTITIONS,
      sql.DELETE_TOPIC,
    ]) {
      this.connection.run(statement, topicId)
    }
  }
}
