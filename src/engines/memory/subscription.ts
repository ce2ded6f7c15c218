import type {
  BreakerReport,
  DeadReason,
  Failure,
  LeaseId,
  StoredEvent,
  SubscriptionConfig,
  SubscriptionState,
} from '../../engine.ts'
import { PosthornError } from '../../errors.ts'
import { LaneShares } from '../lane-shares.ts'
import type { History, Lease, LeaseHolder, LeaseRange } from './delivery/leases.ts'
import { ReturnedRanges } from './delivery/returned.ts'
import { Admissions } from './limits/admission.ts'
import { Chains } from './order/chains.ts'
import { Ownership } from './order/ownership.ts'
import { DeadLetters } from './settlement/dead-letters.ts'
import { type Row, SetAside } from './settlement/set-aside.ts'
import { Steps } from './settlement/steps.ts'
import type { Topic } from './topic.ts'

export interface MessagePlace {
  readonly partition: number
  readonly offset: number
}

/** What is known of a message when it dies. */
export interface Burial {
  readonly id: number
  readonly place: MessagePlace
  readonly reason: DeadReason
  readonly history: History
  readonly failure: Failure
  readonly nowMs: number
  readonly event: StoredEvent | undefined
  readonly key: string | undefined
  readonly blocking: boolean
}

/**
 * What one subscription knows of its topic's messages. A message of a partition is
 * - at or beyond the cursor: not handed out yet (the backlog);
 * - behind it and under a lease, returned, set aside, or dead;
 * - or else settled for good, and nothing is kept of it.
 * A message that was set aside stays a row while it is leased. `deleted` is final: sources that are still open find it,
 * and reject.
 */
export class Subscription {
  readonly topic: Topic
  readonly name: string
  maxCrashes: number
  maxParked: number
  ordered: boolean
  paused = false
  deleted = false
  /** A lane that came into being later has none: it starts at its first message. */
  readonly #cursors: Map<number, number>
  readonly returned = new ReturnedRanges()
  readonly rows = new SetAside()
  readonly leases = new Map<LeaseId, Lease>()
  readonly deadLetters = new DeadLetters()
  readonly chains = new Chains(this.rows, this.deadLetters)
  readonly ownership = new Ownership(this)
  readonly lanes = new LaneShares()
  readonly admissions = new Admissions()
  readonly steps = new Steps()
  /** Those that are open, of living sessions. */
  readonly sources = new Set<LeaseHolder>()
  readonly breakers = new Map<LeaseHolder, BreakerReport>()

  constructor(topic: Topic, config: SubscriptionConfig, cursors: Map<number, number>) {
    this.topic = topic
    this.name = config.subscription
    this.maxCrashes = config.maxCrashes
    this.maxParked = config.maxParked
    this.ordered = config.ordered
    this.#cursors = cursors
  }

  reconfigure({ maxCrashes, maxParked, ordered }: SubscriptionConfig, nowMs: number): void {
    this.maxCrashes = maxCrashes
    this.maxParked = maxParked
    if (this.ordered === ordered) return
    this.ordered = ordered
    this.ownership.clear()
    if (!ordered) this.chains.dissolve(nowMs)
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
    let total = 0
    for (const [partition, log] of this.topic.logs) {
      const position = this.position(partition)
      total += log.nextOffset - position - log.cancelledFrom(position)
    }
    return total
  }

  /** The first message at or behind the cursor that is still there, and is not cancelled. */
  position(partition: number): number {
    const log = this.topic.log(partition)
    let position = Math.max(this.#cursors.get(partition) ?? 0, log.firstOffset)
    while (log.isCancelled(position)) position++
    return position
  }

  move(partition: number, offset: number): void {
    this.#cursors.set(partition, offset)
  }

  /** Everything before it is settled for good, or carries its own copy of the message. */
  floor(partition: number): number {
    const log = this.topic.log(partition)
    let floor = this.position(partition)
    for (const { range, row, firstUnsettled } of this.leases.values()) {
      if (range.partition === partition && !row) floor = Math.min(floor, firstUnsettled)
    }
    floor = Math.min(floor, this.returned.first(partition)?.from ?? floor)
    for (const row of this.rows) {
      if (row.partition === partition && !row.history.event) floor = Math.min(floor, row.offset)
    }
    return Math.max(floor, log.firstOffset)
  }

  /** Puts unsettled messages of a lease back, at the head of what waits. To be followed by `holdReturned`. */
  giveBack(lease: Lease, { partition, from, to }: LeaseRange, crashes: number): void {
    if (lease.row) this.#giveRowBack(lease.row, crashes)
    else this.returned.add({ partition, from, to, crashes })
  }

  /** Of rows that have just come back, together, those wait for their turn again that have to. */
  holdReturned(leases: readonly Lease[]): void {
    if (!this.ordered) return
    for (const { row } of leases) {
      const waits = row && !row.isLeased && this.chains.waitsAgain(row)
      if (waits) this.rows.wait(row, { for: 'turn' }, 'parked')
    }
  }

  bury({ id, place, reason, history, failure, nowMs, event, key, blocking }: Burial): void {
    const { attempt, crashes, failures } = history
    const letter = {
      topic: this.topic.name,
      subscription: this.name,
      id,
      ...place,
      reason,
      deadAtMs: nowMs,
      blocking,
      attempts: attempt,
      crashes,
      failures: [...failures, failure],
      ...(event && { event }),
    }
    this.deadLetters.add({ letter, key })
  }

  /** The source has closed, or its session is lost. */
  forgetSource(source: LeaseHolder): void {
    this.sources.delete(source)
    this.breakers.delete(source)
    this.admissions.release(source)
    this.ownership.disown(source)
    this.ownership.giveUpSurplus()
  }

  /** Forgets the steps of messages that are neither delivered again nor dead letters. */
  sweepSteps(): void {
    const kept = new Set([...this.rows, ...this.deadLetters].map(nameOf))
    this.steps.sweep((place) => kept.has(nameOf(place)) || this.#mayReturn(place))
  }

  state(nowMs: number, oldestTimeMs: number | undefined): SubscriptionState {
    return {
      topic: this.topic.name,
      subscription: this.name,
      paused: this.paused,
      backlog: this.backlog(),
      lagMs: oldestTimeMs === undefined ? 0 : Math.max(0, nowMs - oldestTimeMs),
      leased: [...this.leases.values()].reduce((total, lease) => total + lease.unsettled, 0),
      retrying: this.rows.count('retrying'),
      returned: this.rows.count('returned') + this.returned.messages,
      parked: this.rows.count('parked'),
      blockedKeys: this.deadLetters.blocking,
      breakers: Array.from(this.breakers, ([source, report]) => ({ ...report, consumer: source.session.id })),
      deadLetters: this.deadLetters.size,
      positions: Array.from(this.topic.logs.keys(), (partition) => ({ partition, offset: this.position(partition) })),
    }
  }

  /** Whether the message is to come through the cursor or with a range. */
  #mayReturn(place: MessagePlace): boolean {
    const { partition, offset } = place
    if (offset >= this.position(partition) || this.returned.has(place)) return true
    for (const lease of this.leases.values()) {
      if (lease.range.partition === partition && lease.isOpen(offset)) return true
    }
    return false
  }

  #giveRowBack(row: Row, crashes: number): void {
    row.history = { ...row.history, crashes }
    this.rows.wait(row, row.wait, 'returned')
  }
}

function nameOf({ partition, offset }: MessagePlace): string {
  return `${partition}:${offset}`
}
