import type { Priority, TopicConfig, TopicState } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import { LANES } from '../lane-shares.ts'
import { PartitionLog } from './log/log.ts'
import type { Subscription } from './subscription.ts'

export interface DelayedMessage {
  readonly id: string
  readonly partition: number
  readonly deliverAtMs: number
  readonly timeMs: number
  readonly shared: string
  readonly json: string
}

/** A topic: its partitions, the messages that wait to enter them, the ids it remembers, and its subscriptions. */
export class Topic {
  config: TopicConfig
  /** Whether it has ever had a subscription; until then everything is kept for its first one. */
  hadSubscription = false
  /** By partition, rising. */
  logs: ReadonlyMap<number, PartitionLog> = new Map()
  readonly subscriptions = new Map<string, Subscription>()
  /** In the order in which they are due. */
  readonly #delayed: DelayedMessage[] = []
  readonly #idExpiriesMs = new Map<string, number>()
  #rotation = 0

  constructor(config: TopicConfig) {
    this.config = config
    this.#addLane(0)
  }

  get name(): string {
    return this.config.topic
  }

  /** The log of a partition that is known to be there. */
  log(partition: number): PartitionLog {
    const log = this.logs.get(partition)
    if (!log) throw new Error(`topic ${this.name} has no partition ${partition}`)
    return log
  }

  priorityOf(partition: number): Priority {
    return LANES[Math.floor(partition / this.config.partitions)]!
  }

  /** The number that the partition has in the lane of a priority, which comes into being now unless it was there. */
  partitionIn(priority: Priority, partition: number): number {
    const first = LANES.indexOf(priority) * this.config.partitions
    if (!this.logs.has(first)) this.#addLane(first)
    return first + partition
  }

  /** Takes over what may change; refuses what may not. */
  reconfigure(config: TopicConfig): void {
    for (const setting of ['kind', 'partitions'] as const) {
      if (this.config[setting] === config[setting]) continue
      const details = { topic: this.name, setting, stored: this.config[setting], wanted: config[setting] }
      throw new PosthornError('POSTHORN_TOPIC_CONFLICT', details)
    }
    this.config = config
  }

  /** The partition for the messages without a key of one group. */
  rotate(): number {
    const partition = this.#rotation
    this.#rotation = (partition + 1) % this.config.partitions
    return partition
  }

  /** Whether the id is new within the window; remembers it if so. */
  rememberId(id: string, nowMs: number): boolean {
    const expiresAtMs = this.#idExpiriesMs.get(id)
    if (expiresAtMs !== undefined && expiresAtMs > nowMs) return false
    this.#idExpiriesMs.delete(id)
    this.#idExpiriesMs.set(id, nowMs + this.config.deduplicationWindowMs)
    return true
  }

  /** Stops at the first id still remembered: ids are kept in the order in which they came. */
  forgetExpiredIds(nowMs: number): void {
    for (const [id, expiresAtMs] of this.#idExpiriesMs) {
      if (expiresAtMs > nowMs) return
      this.#idExpiriesMs.delete(id)
    }
  }

  delay(message: DelayedMessage): void {
    const place = this.#delayed.findIndex((other) => other.deliverAtMs > message.deliverAtMs)
    this.#delayed.splice(place === -1 ? this.#delayed.length : place, 0, message)
  }

  nextDelayedMs(): number | undefined {
    return this.#delayed[0]?.deliverAtMs
  }

  /** Says whether a message with this id was waiting for its time. Of several the youngest is deleted. */
  cancelDelayed(id: string): boolean {
    const found = this.#delayed.filter((message) => message.id === id)
    const youngest = found.toSorted((one, other) => one.timeMs - other.timeMs).at(-1)
    if (youngest) this.#delayed.splice(this.#delayed.indexOf(youngest), 1)
    return youngest !== undefined
  }

  /** Moves what is due into the log. Says whether there was anything. */
  promoteDue(nowMs: number): boolean {
    const firstLater = this.#delayed.findIndex((message) => message.deliverAtMs > nowMs)
    const due = this.#delayed.splice(0, firstLater === -1 ? this.#delayed.length : firstLater)
    for (const message of due) this.log(message.partition).append(message.shared, [message])
    return due.length > 0
  }

  /** A queue is then as it was before its first subscription: it keeps everything for the next one. */
  removeSubscription(name: string): void {
    this.subscriptions.delete(name)
    if (this.config.kind === 'queue') this.hadSubscription = false
  }

  /** Messages not yet handed to the slowest subscription; without subscriptions, everything kept. */
  backlog(): number {
    const backlogs = Array.from(this.subscriptions.values(), (subscription) => subscription.backlog())
    return backlogs.length > 0 ? Math.max(...backlogs) : this.#sum((log) => log.messages)
  }

  purge(): number {
    const deleted = this.#delayed.length + this.#sum((log) => log.deleteAll())
    this.#delayed.length = 0
    this.#idExpiriesMs.clear()
    return deleted
  }

  bytes(): number {
    return this.#sum((log) => log.bytes)
  }

  state(): TopicState {
    return {
      topic: this.name,
      kind: this.config.kind,
      partitions: Array.from(this.logs, ([partition, { firstOffset, nextOffset }]) => ({
        partition,
        priority: this.priorityOf(partition),
        firstOffset,
        nextOffset,
      })),
      messages: this.#sum((log) => log.messages),
      bytes: this.bytes(),
      delayed: this.#delayed.length,
      subscriptions: this.subscriptions.size,
    }
  }

  #addLane(first: number): void {
    const added = Array.from(
      { length: this.config.partitions },
      (_, place) => [first + place, new PartitionLog()] as const,
    )
    this.logs = new Map([...this.logs, ...added].toSorted(([one], [other]) => one - other))
  }

  #sum(count: (log: PartitionLog) => number): number {
    return [...this.logs.values()].reduce((total, log) => total + count(log), 0)
  }
}
