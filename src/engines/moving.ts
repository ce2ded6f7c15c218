/**
 * What a store holds, in the form in which it moves to a store of another engine: `MoveSource` reads it out of one,
 * `MoveTarget` writes it into another. Neither has anything to do with engines that are running: a source lets nobody
 * else at its store while it is open.
 *
 * The log goes first, batch by batch, and can be gone on with after an interruption, because nobody sees a target's
 * batches before the topics are there. All the rest, the topics among it, arrives in one transaction.
 *
 * Ids of topics and subscriptions are the source's. Partitions and offsets stay what they were.
 */

/** Lets a store be used again that was left by a move. Resolves with whether it was. */
export type ReopenMoved = (url: string, nowMs: number) => Promise<boolean>

/** Opens a store that exists, to move everything out of it. Rejects with a coded error. */
export type OpenMoveSource = (url: string, nowMs: number) => Promise<MoveSource>

/** Opens a store, made ready for an engine, to move everything into it. Rejects with a coded error. */
export type OpenMoveTarget = (url: string) => Promise<MoveTarget>

export interface MovedTopic {
  readonly topicId: number
  readonly topic: string
  readonly kind: string
  readonly partitions: number
  readonly deduplicationWindowMs: number
  readonly maxAgeMs: number
  readonly maxBytes: number | null
  readonly dropUnread: boolean
  readonly maxBacklog: number | null
  readonly hadSubscription: boolean
  readonly hasCancelled: boolean
}

/** A partition of any lane, by the source's id of its topic. */
export interface PartitionName {
  readonly topicId: number
  readonly partition: number
}

export interface MovedPartition extends PartitionName {
  /** Of the first message that is kept, or else the one that the next will get. */
  readonly firstOffset: number
}

export interface MovedBatch {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly firstTimeMs: number
  readonly lastTimeMs: number
  readonly shared: string
  readonly data: string
  /** Its checksum was right: a damaged one is to stay one, or it would be delivered as if nothing were the matter. */
  readonly isIntact: boolean
}

/** Of batches of a partition. */
export interface BatchSummary {
  readonly batches: number
  readonly messages: number
  /** The first offset, and the one after the last; 0 when there are none. */
  readonly from: number
  readonly to: number
}

export interface MovedRange {
  readonly partition: number
  readonly from: number
  readonly to: number
  readonly crashes: number
}

export interface MovedSubscription {
  readonly subscriptionId: number
  readonly topicId: number
  readonly subscription: string
  readonly ordered: boolean
  readonly maxCrashes: number
  readonly maxParked: number
  readonly paused: boolean
  readonly positions: readonly (readonly [partition: number, offset: number])[]
  /** What came back unsettled, in the order of partitions and offsets. */
  readonly returned: readonly MovedRange[]
}

interface MovedPlace {
  readonly subscriptionId: number
  readonly partition: number
  readonly offset: number
}

/** A message that waits outside of the log. Failures are JSON. */
export interface MovedSetAside extends MovedPlace {
  readonly key: string | null
  /** For a time of its own, or behind others of its key. */
  readonly wait: 'time' | 'turn'
  readonly dueAtMs: number | null
  readonly status: 'retrying' | 'parked'
  readonly attempt: number
  readonly crashes: number
  readonly failures: string
  /** A copy of the message, and its id, where the log may no longer have it. */
  readonly event: string | null
  readonly id: string | null
}

export interface MovedDeadLetter extends MovedPlace {
  readonly deadLetterId: number
  readonly key: string | null
  readonly blocks: boolean
  readonly reason: string
  readonly deadAtMs: number
  readonly attempts: number
  readonly crashes: number
  readonly failures: string
  readonly event: string | null
}

export interface MovedStep extends MovedPlace {
  readonly name: string
  readonly result: string
}

export interface MovedDelayed {
  readonly topicId: number
  readonly partition: number
  readonly id: string
  readonly deliverAtMs: number
  readonly timeMs: number
  readonly shared: string
  readonly own: string
}

export interface MovedCancelled {
  readonly topicId: number
  readonly partition: number
  readonly offset: number
}

/** An id that a publisher gave. */
export interface MovedId {
  readonly topicId: number
  readonly id: string
  readonly expiresAtMs: number
}

/** The bucket of a rate limit that is not full yet. */
export interface MovedBucket {
  readonly subscriptionId: number
  readonly limit: string
  readonly bucket: string
  readonly fullAtMs: number
}

/** How much there is of everything. */
export interface MoveCounts {
  readonly topics: number
  readonly partitions: number
  readonly batches: number
  readonly messages: number
  readonly delayed: number
  readonly cancelled: number
  readonly ids: number
  readonly subscriptions: number
  /** Messages that came back unsettled. */
  readonly returned: number
  readonly setAside: number
  readonly deadLetters: number
  readonly steps: number
}

/** What moves in one transaction. Each list can be read several times. */
export interface MoveContents {
  topics(): readonly MovedTopic[]
  partitions(): readonly MovedPartition[]
  subscriptions(): readonly MovedSubscription[]
  setAside(): Iterable<MovedSetAside>
  deadLetters(): Iterable<MovedDeadLetter>
  steps(): Iterable<MovedStep>
  delayed(): Iterable<MovedDelayed>
  cancelled(): Iterable<MovedCancelled>
  ids(): Iterable<MovedId>
  buckets(): Iterable<MovedBucket>
}

export interface MoveSource extends MoveContents {
  /** As it may stand in reports. */
  readonly store: string
  /** Stays the same for as long as the store exists, whatever it is called. */
  readonly storeId: string
  /** The `store` that all of it was moved to before. */
  readonly movedTo: string | undefined
  readonly counts: MoveCounts
  /** Differs after anything was published or settled. */
  readonly fingerprint: string
  /** Of the batches of a partition that lie before an offset. */
  summary(partition: PartitionName, before: number): BatchSummary
  /** The batches of a partition from an offset on. */
  batches(partition: PartitionName, from: number): Iterable<MovedBatch>
  /** Everything is elsewhere: whoever opens it from now on to use it is told so. */
  leave(movedTo: string): void
  close(): void
}

/** What a target is told of the source before anything moves. */
export interface MoveClaim extends Pick<MoveSource, 'store' | 'storeId' | 'fingerprint' | 'counts'> {
  readonly topicIds: readonly number[]
}

/** A move that was completed. */
export interface FinishedMove {
  readonly finishedAtMs: number
  readonly fingerprint: string
  readonly counts: MoveCounts
}

export interface MoveTarget {
  /** As it may stand in reports: without a password. */
  readonly store: string
  /**
   * Begins to move a source here, or goes on with it. Resolves with what an earlier run has completed. Rejects with
   * POSTHORN_TARGET_NOT_EMPTY, or with POSTHORN_STORE_IN_USE.
   */
  begin(claim: MoveClaim, nowMs: number): Promise<FinishedMove | undefined>
  /** Of the batches of a partition that have arrived. */
  summary(partition: PartitionName): Promise<BatchSummary>
  /** Deletes what has arrived of a partition. */
  dropBatches(partition: PartitionName): Promise<void>
  /**
   * Stores batches durably, and says of each part of them, as soon as it is stored, how many messages it has. Batches
   * that are there already stay.
   */
  addBatches(batches: Iterable<MovedBatch>, onStored: (messages: number) => void): Promise<void>
  /**
   * Stores the rest, and makes everything visible, unless `check` throws when it is told what is there. Rejects with
   * POSTHORN_TARGET_NOT_EMPTY or POSTHORN_STORE_IN_USE when somebody has begun to use the store meanwhile.
   */
  complete(contents: MoveContents, check: (arrived: MoveCounts) => void, nowMs: number): Promise<void>
  close(): Promise<void>
}
