import type { DeadLetter, DeadReason, Failure, LeaseId, SubscriptionState } from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import type { History, Lease } from './leases.ts'
import type { Topic } from './topic.ts'
import { WaitingMessages } from './waiting.ts'

export interface MessagePlace {
  readonly partition: number
  readonly offset: number
}

/**
 * What one subscription knows of its topic's messages. A message of a partition is
 * - at or beyond the cursor: not handed out yet (the backlog);
 * - behind it and under a lease, waiting (returned, or for a retry), or dead;
 * - or else settled for good, and nothing is kept of it.
 * `deleted` is final: sources that are still open find it, and reject.
 */
export class Subscription {
  readonly topic: Topic
  readonly name: string
  maxCrashes: number
  paused = false
  deleted = false
  readonly cursors: number[]
  readonly waiting = new WaitingMessages()
  readonly leases = new Map<LeaseId, Lease>()
  /** Oldest first. */
  deadLetters: DeadLetter[] = []

  constructor(topic: Topic, name: string, maxCrashes: number, cursors: number[]) {
    this.topic = topic
    this.name = name
    this.maxCrashes = maxCrashes
    this.cursors = cursors
  }

  requireExists(): void {
    if (!this.deleted) return
    const details = { topic: this.topic.name, subscription: this.name }
    throw new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', details)
  }

  /** Whether one more crash would make a dead letter of a message that has `crashes` of them. */
  isSuspect({ crashes }: { readonly crashes: number }): boolean {
    return crashes >= Math.max(1, this.maxCrashes - 1)
  }

  backlog(): number {
    return this.topic.logs.reduce((total, log, partition) => total + log.nextOffset - this.position(partition), 0)
  }

  /** The cursor, or the first message that is still there when retention has passed the cursor. */
  position(partition: number): number {
    return Math.max(this.cursors[partition]!, this.topic.logs[partition]!.firstOffset)
  }

  /** Everything before it is settled for good, or carries its own copy of the message. */
  floor(partition: number): number {
    const log = this.topic.logs[partition]!
    let floor = this.position(partition)
    for (const lease of this.leases.values()) {
      if (lease.range.partition === partition && !lease.history.event) floor = Math.min(floor, lease.firstUnsettled)
    }
    for (const range of this.waiting.ranges) if (range.partition === partition) floor = Math.min(floor, range.from)
    for (const row of this.waiting.rows) {
      if (row.partition === partition && !row.event) floor = Math.min(floor, row.offset)
    }
    return Math.max(floor, log.firstOffset)
  }

  /** Puts the unsettled messages of `[from, to)` of a lease back, at the head of what waits. */
  giveBack(lease: Lease, range: { from: number; to: number }, crashes: number, nowMs: number): void {
    const { partition } = lease.range
    if (lease.single) {
      const row = { ...lease.history, partition, offset: range.from, crashes }
      this.waiting.addRow({ ...row, dueAtMs: nowMs, returned: true })
    } else {
      this.waiting.addRange({ partition, from: range.from, to: range.to, crashes })
    }
  }

  bury(letter: {
    readonly id: number
    readonly place: MessagePlace
    readonly reason: DeadReason
    readonly history: History
    readonly failure: Failure
    readonly nowMs: number
  }): void {
    const { attempt, crashes, failures, event } = letter.history
    this.deadLetters.push({
      topic: this.topic.name,
      subscription: this.name,
      id: letter.id,
      ...letter.place,
      reason: letter.reason,
      deadAtMs: letter.nowMs,
      attempts: attempt,
      crashes,
      failures: [...failures, letter.failure],
      ...(event && { event }),
    })
  }

  state(nowMs: number, oldestTimeMs: number | undefined): SubscriptionState {
    const { ranges, rows } = this.waiting
    const retrying = rows.filter((row) => !row.returned).length
    return {
      topic: this.topic.name,
      subscription: this.name,
      paused: this.paused,
      backlog: this.backlog(),
      lagMs: oldestTimeMs === undefined ? 0 : Math.max(0, nowMs - oldestTimeMs),
      leased: [...this.leases.values()].reduce((total, lease) => total + lease.unsettled, 0),
      retrying,
      returned: rows.length - retrying + ranges.reduce((total, range) => total + range.to - range.from, 0),
      deadLetters: this.deadLetters.length,
      positions: this.cursors.map((_cursor, partition) => ({ partition, offset: this.position(partition) })),
    }
  }
}
