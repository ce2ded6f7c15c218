/**
 * The contract between Posthorn and the place where it keeps its messages. An engine implements this file and nothing
 * else; the publisher and the consumer runtime speak to it and to nothing behind it. The comments here are the
 * contract: `test/conformance` checks each of them on every engine.
 *
 * An `Engine` is one connection of one process. It plays two parts:
 * - a log: `append` stores messages, durably, in named topics that are split into partitions. A message gets an
 *   offset, which rises by one from message to message of a partition.
 * - a lease keeper: a `Source` hands out ranges of a subscription's messages under leases, and takes settlements back.
 *
 * **Leases.** All leases of one engine live as long as its session does: the engine renews the session by itself, off
 * the user's event loop where it can, and gives up when the process dies or its event loop has been silent for longer
 * than the longest handler timeout of its sources. Leases of a session that ran out are taken back, their crash count
 * rises by one, and every later settlement under them changes nothing (they are *fenced*).
 *
 * **Crash isolation.** Messages that come back from a lost session are granted like any others, in ranges, until one
 * more crash would make them dead letters: from `max(1, maxCrashes - 1)` crashes on they are suspects. Suspects are
 * granted one at a time, alone (`Grant.isolated`), and at most one suspect is out per engine at any time, so that the
 * next loss names the guilty one. A message that was isolated when its session was lost, and whose crash count has
 * reached the subscription's `maxCrashes`, becomes a dead letter; one that was not isolated never does. The limits are
 * those of the moment: a changed `maxCrashes` holds for messages that wait, too. Attempts are not counted by crashes,
 * and a recorded failure sets the crash count back to 0.
 *
 * **Order.** A partition of an ordered subscription is *owned* by one source at a time, which alone is granted messages
 * of it. A source that closes, or whose session is lost, stops owning. The partitions of each lane are divided evenly
 * among the open sources, those opened first taking what is left over; a source that owns more than its share is
 * granted nothing more from the partitions beyond it, is asked to release what it has not begun of them (`onSurplus`),
 * and gives each up once it holds no lease there. A partition is taken only while nobody holds a lease in it. From an
 * owned partition returned ranges come first, in offset order, and nothing else of the partition before them; one that
 * cannot be granted now (a suspect, while another is out) holds back everything behind it. Grants of one pull are in
 * the order in which their messages are to be handled. The engine does not look at keys on this way: the owner runs one
 * message of a key at a time, begins none before the settlement of the one before is recorded, and *sets aside* what
 * follows a failed one (`retry` and `park`, with the key). Messages set aside form a chain for each key, in offset
 * order, of which only the first becomes due; when it is settled for good (or skipped by an operator, if it is a dead
 * letter that blocks its key), the next ones do. `Grant.takeover` tells a new owner which keys have a chain; the first
 * of each chain that is merely parked is due from then on.
 *
 * **Set aside** are messages that wait outside of the log: for their next attempt, for their key, or for a limit. Once
 * a subscription has `maxParked` of them, it is granted no new messages until there are fewer.
 *
 * **Time** comes from the environment's clock. With a clock that is not real, the engine acts on due times, expiries
 * and lost sessions when that clock moves, and renews its session by that clock too.
 */
import type { Environment } from './environment/index.ts'

/** Opens an engine. Rejects with a coded error, and leaves nothing behind, when it cannot. */
export type ConnectEngine = (url: URL | string, options: EngineOptions) => Promise<Engine>

export interface EngineOptions {
  readonly environment: Environment
  /** How long, in milliseconds, the session outlives its last renewal; renewed three times as often. */
  readonly leaseMs: number
}

export interface Capabilities {
  /** An acknowledged message survives the death of every process. */
  readonly durable: boolean
  /** Several processes may connect to one store. */
  readonly multiProcess: boolean
  /** `appendIn` works: messages can be published within the user's own transaction. */
  readonly transactionalAppend: boolean
  /** `Source.transact` works: a handler's writes, what it publishes and its settlement commit together. */
  readonly transactionalHandlers: boolean
}

export interface Engine {
  /** `sqlite`, `memory`, ... */
  readonly name: string
  readonly capabilities: Capabilities

  /**
   * Makes the topic exist with this configuration. Idempotent. What can change later (retention, backlog limit,
   * deduplication window) is overwritten; a different `kind` or number of partitions is POSTHORN_TOPIC_CONFLICT.
   */
  ensureTopic(config: TopicConfig): Promise<void>

  /**
   * Makes the subscription exist. Idempotent: an existing one keeps its position, takes over `maxCrashes`, `ordered`
   * and `maxParked`. The topic must exist. A new one starts where `start` says; with `start` undefined, at `latest`, or
   * at `earliest` when the topic has never had a subscription.
   */
  ensureSubscription(config: SubscriptionConfig): Promise<void>

  /**
   * Stores all groups in one atomic commit and resolves once it is on stable storage, with one outcome per group, in
   * order. A group that its topic's limits refuse is stored not at all, and does not keep the others from being
   * stored. Rejects when storage failed; then nothing was stored, unless the error says that the outcome is unknown.
   * Messages of one group that share a partition get rising offsets in the group's order. With `atomic`, a refused
   * group keeps all of the others of the call from being stored: each outcome then is `refused`, for that same reason.
   */
  append(groups: readonly AppendGroup[], options?: AppendOptions): Promise<readonly AppendOutcome[]>

  /**
   * Stores a group within the user's own open transaction `transaction`, synchronously or not as the user's
   * connection works: it is stored if and when that transaction commits. Throws or rejects
   * POSTHORN_INVALID_TRANSACTION, or POSTHORN_UNSUPPORTED where `capabilities.transactionalAppend` is false.
   */
  appendIn(transaction: unknown, group: AppendGroup): Promise<AppendOutcome>

  /** Opens this process's share of a subscription. Both must exist. Close it before the engine is closed. */
  openSource(options: SourceOptions): Promise<Source>

  readonly admin: EngineAdmin

  /** Closes open sources, finishes appends under way, ends the session. Idempotent. */
  close(): Promise<void>
}

export interface AppendOptions {
  /** All groups or none. */
  readonly atomic?: boolean
}

export interface TopicConfig {
  readonly topic: string
  /** A queue's messages are deleted as soon as its one subscription has settled them. */
  readonly kind: 'topic' | 'queue'
  readonly partitions: number
  /** How long a publisher-given id is remembered, in milliseconds. */
  readonly deduplicationWindowMs: number
  readonly retention: Retention
  /**
   * Messages not yet handed to the slowest subscription at which `append` answers POSTHORN_BACKLOG_FULL. A group that
   * begins below the limit may be stored whole, and pass it.
   */
  readonly maxBacklog?: number
}

/** What is deleted, batch by batch: what every subscription has settled and is older or beyond these limits. */
export interface Retention {
  readonly maxAgeMs: number
  readonly maxBytes?: number
  /** Deletes beyond the limits even what a subscription has not had. */
  readonly dropUnread: boolean
}

export type StartPosition =
  | { readonly at: 'earliest' | 'latest' }
  | { readonly timeMs: number }
  | { readonly offset: number; readonly partition?: number }

export interface SubscriptionConfig {
  readonly topic: string
  readonly subscription: string
  /**
   * The crash count at which a message that was isolated becomes a dead letter. It is isolated from one crash less on,
   * but not before its first, so that 1 means the same as 2.
   */
  readonly maxCrashes: number
  readonly start?: StartPosition
  /** Partitions have owners, so that messages of one key can be handled in order. */
  readonly ordered: boolean
  /** Messages set aside at which no new ones are granted. */
  readonly maxParked: number
}

export interface AppendGroup {
  readonly topic: string
  /** JSON object: the CloudEvents attributes that every message of the group shares. */
  readonly shared: string
  readonly messages: readonly NewMessage[]
}

export interface NewMessage {
  readonly id: string
  /** JSON object: the message's own CloudEvents attributes (id, time, subject, extensions) and `data`. */
  readonly json: string
  /** Messages with equal keys share a partition; those without are spread. */
  readonly key?: string
  readonly timeMs: number
  /** The id came from the publisher: within the topic's window, store it once. */
  readonly deduplicate?: true
  /** Not to be delivered before this time (milliseconds since the epoch); it enters the log when it is due. */
  readonly deliverAtMs?: number
  /** Undefined: normal. */
  readonly priority?: 'high' | 'low'
}

/**
 * The lanes of a topic. Each has partitions of its own, as many as the topic has: normal ones are numbered from 0, high
 * and low ones after them, and come into being with the first message of that priority. New messages are granted by
 * weight: of 21 while all three lanes have some, about 16 are high, 4 normal and 1 low; what one does not need goes to
 * the others.
 */
export type Priority = 'high' | 'normal' | 'low'

export const PRIORITY_WEIGHTS: Readonly<Record<Priority, number>> = { high: 16, normal: 4, low: 1 }

export type AppendOutcome = { readonly receipts: readonly AppendReceipt[] } | { readonly refused: Error }

export interface AppendReceipt {
  /** The id was known already: nothing new was stored. */
  readonly duplicate: boolean
  /** Where it was stored. Undefined for delayed messages and duplicates. */
  readonly partition?: number
  readonly offset?: number
}

export interface SourceOptions {
  readonly topic: string
  readonly subscription: string
  /** The longest that a handler may run; the engine trusts a silent event loop for this long. Milliseconds. */
  readonly handlerTimeoutMs: number
  /** What `admit` is to keep to. */
  readonly limits: readonly Limit[]
  /** A message under lease was cancelled: it counts as settled. Called on the event loop, soon after. */
  onCancelled(lease: LeaseId, offset: number): void
  /**
   * Leases of this source were lost, these or all that it has: their messages are or will be somebody else's. Called on
   * the event loop.
   */
  onLeasesLost(leases: readonly LeaseId[] | 'all', reason: string): void
  /**
   * The source owns more partitions than its share: it is to release what it has not begun of these, so that they can
   * change hands. Called on the event loop, again as long as it is so (at most about ten times a second).
   */
  onSurplus(partitions: readonly number[]): void
  /** Messages could not be read (POSTHORN_BATCH_CORRUPT): they are settled as dead letters without content. */
  onDamage(error: Error): void
}

export type LeaseId = number

/** A limit of a subscription over all of its sources. Messages that share a bucket share the limit. */
export type Limit = RateLimit | InFlightLimit

/**
 * In no stretch of `perMs` do more than `limit` messages of a bucket start, `burst` of them at once at most. A token
 * bucket of `burst` tokens, refilled every `(perMs + graceMs) / (limit - burst + 1)` ms: slow enough that a full bucket
 * and what is refilled meanwhile stay within the limit, even when each start comes up to `graceMs` late. A source that
 * is later than that lets the permission lapse.
 */
export interface RateLimit {
  readonly kind: 'rate'
  /** Tells the limits of one subscription apart. */
  readonly name: string
  readonly limit: number
  readonly perMs: number
  /** 1 to `limit`. */
  readonly burst: number
  readonly graceMs: number
}

/** No more than `limit` messages of a bucket are admitted and not yet reported as `finished`. */
export interface InFlightLimit {
  readonly kind: 'inFlight'
  readonly name: string
  readonly limit: number
}

/** For each limit of the source, in the same order, the bucket that a message counts in. */
export type Buckets = readonly string[]

export interface AdmissionDemand {
  readonly buckets: Buckets
  /** How many messages could start now or soon. */
  readonly starts: number
}

export interface Admission {
  /** When each admitted message may start, in milliseconds from the call on, rising. As many as may start soon. */
  readonly startsInMs: readonly number[]
  /** If more was asked for: when to ask again, in milliseconds from the call on. */
  readonly againInMs: number
}

/** Messages that ended, or whose permission was not used. */
export interface FinishedMessages {
  readonly buckets: Buckets
  readonly messages: number
}

export interface BreakerReport {
  readonly state: 'open' | 'half-open' | 'ramping'
  /** When it last opened, in milliseconds since the epoch. */
  readonly openedAtMs: number
  /** When the next message is tried; undefined unless it is open. */
  readonly probeAtMs?: number
  /** The failure that opened it, or the last probe's. */
  readonly reason: string
}

export interface Source {
  /**
   * Until when nobody else can have what is leased, in milliseconds since the epoch, as far as is known at this moment: it
   * rises with each renewal of the session. From then on no message is to be begun, until either it has risen, or the
   * leases are said to be lost; it does not rise for leases that are lost before that is said.
   */
  readonly leasedUntilMs: number

  /**
   * Resolves with at least one grant as soon as there is something to deliver and the subscription is not paused;
   * with none when `signal` aborts or the source closes. One call at a time. Takes no more than `messagesMax`
   * messages in all, and stops granting beyond about `bytesMax` bytes of stored messages (one is always granted).
   * Grants and settlements may cross: what was granted before a settlement was carried out may arrive after its answer,
   * and owners of ordered subscriptions must expect messages of a key that they have set aside since.
   * Rejects with POSTHORN_SUBSCRIPTION_NOT_FOUND once the subscription was deleted: that is final for this source.
   */
  pull(limits: { messagesMax: number; bytesMax: number }, signal: AbortSignal): Promise<readonly Grant[]>

  /**
   * Records what became of deliveries. Resolves with the leases that were fenced, for which nothing was recorded.
   * A lease ends when all of its messages are settled. On rejection nothing was recorded: call again.
   */
  settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]>

  /**
   * Asks whether messages may start, within the limits of the subscription over all processes; one answer for each
   * demand, in order. What was admitted by a limit of messages in flight holds its place until it is reported as
   * finished, until the source closes, or its session is lost. Places that are reported are free before the demands are
   * looked at.
   */
  admit(demands: readonly AdmissionDemand[], finished: readonly FinishedMessages[]): Promise<readonly Admission[]>

  /** Shows the state of this source's breaker to operators; undefined: closed. */
  reportBreaker(report: BreakerReport | undefined): Promise<void>

  /** The results of the finished steps of a leased message, as JSON by name. Rejects with POSTHORN_LEASE_LOST. */
  steps(lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>>

  /**
   * Keeps the result of a step of a leased message, on stable storage, until the message is acknowledged, in place of
   * an earlier result of the same name. So it does for a message that failed under the lease (`retry`), until its next
   * attempt is granted or it is taken from its wait by an operator: nobody else can have run the step meanwhile. A
   * result that begins with `{"problem":` tells why there is none; a redrive forgets it. Rejects with
   * POSTHORN_LEASE_LOST and keeps nothing when the lease is not this source's any more, or the source is closed.
   */
  recordStep(lease: LeaseId, offset: number, name: string, result: string): Promise<void>

  /**
   * Runs `work` in a transaction of the user's database, and commits it together with the acknowledgement of the
   * message: both or neither. Resolves with 'fenced', and everything rolled back, when the lease was lost. When `work`
   * rejects, rolls back and rejects with the same. Rejects with POSTHORN_UNSUPPORTED where
   * `capabilities.transactionalHandlers` is false.
   */
  transact(
    lease: LeaseId,
    offset: number,
    work: (transaction: unknown) => Promise<void>,
  ): Promise<'committed' | 'fenced'>

  /** Gives back what is leased and unsettled, at once deliverable elsewhere with nothing counted. Idempotent. */
  close(): Promise<void>
}

/** Messages under one lease, in offset order, from one partition. */
export interface Grant {
  readonly lease: LeaseId
  readonly partition: number
  readonly messages: readonly StoredMessage[]
  /** 1 for a first delivery. Above 1, the grant holds one message. */
  readonly attempt: number
  /** The grant holds one message that was set aside before. */
  readonly setAside: boolean
  /**
   * The partition of an ordered subscription is this source's with this grant: the chains of keys that are in the
   * store.
   */
  readonly takeover?: readonly KeyChain[]
  /** Sessions lost while these messages were leased, since their last failure: the same for all of the grant. */
  readonly crashes: number
  /** A suspect: one message, to be run with no other of this subscription beside it in this process. */
  readonly isolated: boolean
  /** The failures of earlier attempts, oldest first. */
  readonly failures: readonly Failure[]
  /** What its messages take up in the store, about. */
  readonly bytes: number
}

/** Messages of one key that were set aside. */
export interface KeyChain {
  readonly key: string
  readonly firstOffset: number
  readonly lastOffset: number
}

/** Shared by all subscriptions of a process: never changed, deeply frozen. */
export interface StoredMessage {
  readonly offset: number
  /** Milliseconds since the epoch after which it is not to be delivered any more. */
  readonly expiresAtMs?: number
  readonly event: StoredEvent
}

/** A CloudEvents 1.0 event as it was stored. */
export interface StoredEvent {
  readonly specversion: '1.0'
  readonly id: string
  readonly source: string
  readonly type: string
  readonly time: string
  readonly subject?: string
  readonly datacontenttype?: string
  readonly dataschema?: string
  readonly data: unknown
  readonly [extension: string]: unknown
}

export interface Failure {
  readonly attempt: number
  readonly atMs: number
  readonly name: string
  readonly message: string
  readonly code?: string
  readonly stack?: string
}

export interface Settlement {
  readonly lease: LeaseId
  /** Half-open ranges of acknowledged offsets, flat: [from, to, from, to, ...]. */
  readonly acked: readonly number[]
  readonly exceptions: readonly SettledException[]
  /** Of the acknowledged offsets, those that have recorded steps, which are forgotten. */
  readonly stepped?: readonly number[]
  /**
   * Keys whose chains, in the partition of the lease, wait until they are `freed`: the first of each is due now. Said
   * also under a lease that has just ended because the last of its messages was cancelled.
   */
  readonly freed?: readonly string[]
}

/** `key` is given in ordered subscriptions, for messages that have one; of a message that was set aside it is known. */
export type SettledException =
  /** Deliver again at `dueAtMs` as the next attempt. */
  | {
      readonly offset: number
      readonly kind: 'retry'
      readonly dueAtMs: number
      readonly failure: Failure
      readonly key?: string
    }
  /** `blocks`: what else is in the chain of its key waits until an operator redrives or deletes the dead letter. */
  | {
      readonly offset: number
      readonly kind: 'dead'
      readonly reason: DeadReason
      readonly failure: Failure
      readonly key?: string
      readonly blocks?: boolean
    }
  /**
   * Set aside with nothing counted, to be delivered as the same attempt. Until a time; or behind what its key has in
   * the store (`chain`: due at once if that is nothing); or until a settlement names the key in `freed`.
   */
  | {
      readonly offset: number
      readonly kind: 'park'
      readonly until: number | 'chain' | 'freed'
      readonly key?: string
    }
  /** Deliver again at once, elsewhere or here, as the same attempt. */
  | { readonly offset: number; readonly kind: 'release' }

export type DeadReason = 'attempts' | 'discarded' | 'expired' | 'crashed' | 'invalid' | 'damaged'

/** What operators see and do. Every call names what it cannot find with a coded error. */
export interface EngineAdmin {
  topics(): Promise<readonly TopicState[]>
  /** All subscriptions, or those of one topic. */
  subscriptions(topic?: string): Promise<readonly SubscriptionState[]>
  /** Sessions that have opened a source, the living and those not yet given up. */
  consumers(): Promise<readonly ConsumerState[]>
  /** Reads messages without leasing them, in offset order from `fromOffset`. */
  peek(topic: string, options: PeekOptions): Promise<readonly PeekedMessage[]>
  /** Oldest first. */
  deadLetters(subscription: SubscriptionRef, options: DeadLetterQuery): Promise<readonly DeadLetter[]>
  /**
   * Puts dead letters back for delivery as new first attempts. Returns how many. One that blocks its key goes before
   * what was set aside behind it. Results of their steps stay, but for those that say what was wrong with them.
   */
  redrive(subscription: SubscriptionRef, options: RedriveOptions): Promise<number>
  /**
   * Deletes dead letters, with the results of steps of messages that are nowhere else under way. Returns how many. Keys
   * that they block go on with what was set aside.
   */
  deleteDeadLetters(subscription: SubscriptionRef, ids?: readonly number[]): Promise<number>
  /**
   * Delivers again everything from `position` on and nothing before it that was not already under way: leases and
   * retries at or after the position are taken back (their settlements are fenced), those before it stay. Dead letters
   * from there on block their key no longer. What was neither under way nor a dead letter has no results of steps then.
   */
  seek(subscription: SubscriptionRef, position: StartPosition): Promise<void>
  /**
   * Stops the message with this id, for all subscriptions of the topic: before it is due, while it waits, or while a
   * handler runs (whose source is told by `onCancelled`). It is not delivered again, and becomes no dead letter. What
   * is settled already is not touched. A message that was stopped anywhere stays cancelled, for replays and later
   * subscriptions too, as long as the log keeps it. Of several with this id (the deduplication window of one was over
   * when the next was published) one is meant: one that is not due yet, or else the youngest.
   */
  cancel(topic: string, id: string): Promise<CancelOutcome>
  pause(subscription: SubscriptionRef): Promise<void>
  resume(subscription: SubscriptionRef): Promise<void>
  /**
   * Deletes all messages of a topic, delivered or not, delayed ones too, and forgets the ids that publishers gave.
   * Dead letters stay, with the results of their steps. Returns how many messages.
   */
  purge(topic: string): Promise<number>
  /**
   * Deletes a subscription with its position, retries and dead letters. A queue without its subscription keeps
   * everything for the next one.
   */
  deleteSubscription(subscription: SubscriptionRef): Promise<void>
  deleteTopic(topic: string): Promise<void>
  /** Reads everything and lists what is wrong with it; empty when all is well. */
  checkIntegrity(): Promise<readonly string[]>
  /** Deletes what retention allows now rather than at the next round. Returns how many messages. */
  applyRetention(): Promise<number>
}

/** How many deliveries were stopped: for a message that was not due yet, one; otherwise one a subscription. */
export interface CancelOutcome {
  readonly delayed: number
  readonly waiting: number
  readonly running: number
}

export interface SubscriptionRef {
  readonly topic: string
  readonly subscription: string
}

export interface TopicState {
  readonly topic: string
  readonly kind: 'topic' | 'queue'
  readonly partitions: readonly PartitionState[]
  /** Messages kept now, delivered or not. */
  readonly messages: number
  readonly bytes: number
  /** Messages that wait for their delivery time. */
  readonly delayed: number
  readonly subscriptions: number
}

export interface PartitionState {
  readonly partition: number
  readonly priority: Priority
  /** The first offset still kept, and the one that the next message will get. */
  readonly firstOffset: number
  readonly nextOffset: number
}

export interface SubscriptionState extends SubscriptionRef {
  readonly paused: boolean
  /** Messages not yet handed to a consumer, by subtraction: a few may be damaged or expired. */
  readonly backlog: number
  /** Milliseconds since the oldest message of the backlog was published; 0 when there is none. */
  readonly lagMs: number
  /** Messages under lease now, whose settlement is not recorded yet. */
  readonly leased: number
  /** Messages that wait for their next attempt, or to be granted now that their turn has come. */
  readonly retrying: number
  /** Messages given back after a lost session or a release, that wait for another delivery. */
  readonly returned: number
  /** Messages that wait for their key or for a limit. */
  readonly parked: number
  /** Dead letters that block their key. */
  readonly blockedKeys: number
  /** Breakers that are not closed, one for each process. */
  readonly breakers: readonly (BreakerReport & { readonly consumer: string })[]
  readonly deadLetters: number
  readonly positions: readonly { readonly partition: number; readonly offset: number }[]
}

export interface ConsumerState {
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly startedAtMs: number
  /** When the session runs out unless it is renewed before. */
  readonly leaseUntilMs: number
  readonly subscriptions: readonly SubscriptionRef[]
}

export interface PeekOptions {
  readonly partition: number
  readonly fromOffset: number
  readonly limit: number
}

export interface PeekedMessage {
  readonly partition: number
  readonly message: StoredMessage
}

export interface DeadLetterQuery {
  readonly limit: number
  /** Only those with a greater id: the last one of the page before. */
  readonly afterId?: number
}

export interface DeadLetter extends SubscriptionRef {
  readonly id: number
  readonly partition: number
  readonly offset: number
  readonly reason: DeadReason
  readonly deadAtMs: number
  /** What else of its key was set aside waits until this one is redriven or deleted. */
  readonly blocking: boolean
  readonly attempts: number
  readonly crashes: number
  readonly failures: readonly Failure[]
  /** Undefined when the message itself could not be read. */
  readonly event?: StoredEvent
}

export interface RedriveOptions {
  /** Only these; otherwise all. */
  readonly ids?: readonly number[]
  /** Spread over time, so many a second; otherwise at once. */
  readonly perSecond?: number
}
