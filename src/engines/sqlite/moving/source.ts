/**
 * A file that moves elsewhere. It is this process's alone while it is open (see alone.ts), so all that is read of it is
 * one state. It is changed in three ways: it is brought to the present schema; the sessions of processes that died are
 * given up, as the engine would do when it next starts; and it is given an id.
 *
 * Batches whose checksum is wrong move as they are. Tables that contradict each other do not: nobody could tell what the
 * numbers mean.
 */
import { PosthornError } from '../../../errors.ts'
import type {
  BatchSummary,
  MoveCounts,
  MovedBatch,
  MovedBucket,
  MovedCancelled,
  MovedDeadLetter,
  MovedDelayed,
  MovedId,
  MovedPartition,
  MovedRange,
  MovedSetAside,
  MovedStep,
  MovedSubscription,
  MovedTopic,
  MoveSource,
  OpenMoveSource,
  PartitionName,
  ReopenMoved,
} from '../../moving.ts'
import { BROKEN_PLACES } from '../sql/inspection.ts'
import * as sql from '../sql/moving.ts'
import { FIND_MOVED_TO } from '../sql/schema.ts'
import { bitsOf, type LeaseRow } from '../store/delivery/leases.ts'
import type { Connection } from '../store/file/connection.ts'
import { describeFailure } from '../store/file/failure.ts'
import type { BatchRow } from '../store/log/log.ts'
import { isIntact } from '../store/log/message-reader.ts'
import { openAlone, storeIdOf } from './alone.ts'

/** SQLite has no booleans. */
type Stored<Row, Flags extends keyof Row> = Omit<Row, Flags> & Readonly<Record<Flags, 0 | 1>>

type StoredTopic = Stored<MovedTopic, 'dropUnread' | 'hadSubscription' | 'hasCancelled'>
type StoredSubscription = Stored<Omit<MovedSubscription, 'positions' | 'returned'>, 'ordered' | 'paused'>
type StoredBatch = BatchRow & Pick<MovedBatch, 'firstTimeMs' | 'lastTimeMs'>
type StoredRange = Pick<LeaseRow, 'leaseId' | 'partition' | 'fromOffset' | 'toOffset' | 'settled' | 'crashes'>

/** Opens `sqlite:path`, of a file that is there and that nobody else has open. */
export const openSqliteMoveSource: OpenMoveSource = async (url, nowMs) => {
  const connection = openAlone(url, nowMs)
  try {
    refuseBroken(connection)
    return new SqliteMoveSource(connection, nowMs)
  } catch (error) {
    connection.close()
    throw describeFailure(error, connection.file)
  }
}

/** Lets a file be used again after it was moved. Says whether it had been. Rejects as opening it to move it does. */
export const reopenSqlite: ReopenMoved = async (url, nowMs) => {
  const connection = openAlone(url, nowMs)
  try {
    return connection.write(() => Number(connection.run(sql.FORGET_MOVED_TO).changes) > 0)
  } finally {
    connection.close()
  }
}

class SqliteMoveSource implements MoveSource {
  readonly store: string
  readonly storeId: string
  readonly movedTo: string | undefined
  readonly counts: MoveCounts
  readonly fingerprint: string
  readonly #connection: Connection
  readonly #nowMs: number

  constructor(connection: Connection, nowMs: number) {
    this.#connection = connection
    this.#nowMs = nowMs
    this.store = `sqlite:${connection.file}`
    this.storeId = storeIdOf(connection)
    this.movedTo = connection.get<{ movedTo: string }>(FIND_MOVED_TO)?.movedTo
    this.counts = this.#count()
    // Ids are forgotten while nothing happens.
    const { ids: _, ...counts } = this.counts
    this.fingerprint = JSON.stringify({ ...counts, ...connection.get<object>(sql.PROGRESS) })
  }

  topics(): MovedTopic[] {
    return this.#all<StoredTopic>(sql.TOPICS).map((row) => ({
      ...row,
      dropUnread: row.dropUnread === 1,
      hadSubscription: row.hadSubscription === 1,
      hasCancelled: row.hasCancelled === 1,
    }))
  }

  partitions(): MovedPartition[] {
    return this.#all<MovedPartition>(sql.PARTITIONS)
  }

  summary({ topicId, partition }: PartitionName, before: number): BatchSummary {
    return this.#all<BatchSummary>(sql.BATCH_SUMMARY, topicId, partition, before)[0]!
  }

  *batches({ topicId, partition }: PartitionName, from: number): Iterable<MovedBatch> {
    for (const row of this.#connection.iterate<StoredBatch>(sql.BATCHES, topicId, partition, from)) {
      const { crc32: _, ...batch } = row
      yield { ...batch, isIntact: isIntact(row) }
    }
  }

  subscriptions(): MovedSubscription[] {
    return this.#all<StoredSubscription>(sql.SUBSCRIPTIONS).map((row) => ({
      ...row,
      ordered: row.ordered === 1,
      paused: row.paused === 1,
      positions: this.#positions(row.subscriptionId),
      returned: this.#returned(row.subscriptionId),
    }))
  }

  setAside(): Iterable<MovedSetAside> {
    return this.#connection.iterate(sql.SET_ASIDE)
  }

  *deadLetters(): Iterable<MovedDeadLetter> {
    for (const row of this.#connection.iterate<Stored<MovedDeadLetter, 'blocks'>>(sql.DEAD_LETTERS)) {
      yield { ...row, blocks: row.blocks === 1 }
    }
  }

  steps(): Iterable<MovedStep> {
    return this.#connection.iterate(sql.STEPS)
  }

  delayed(): Iterable<MovedDelayed> {
    return this.#connection.iterate(sql.DELAYED)
  }

  cancelled(): Iterable<MovedCancelled> {
    return this.#connection.iterate(sql.CANCELLED)
  }

  ids(): Iterable<MovedId> {
    return this.#connection.iterate(sql.IDS, this.#nowMs)
  }

  buckets(): Iterable<MovedBucket> {
    return this.#connection.iterate(sql.BUCKETS, this.#nowMs)
  }

  leave(movedTo: string): void {
    this.#connection.write(() => this.#connection.run(sql.KEEP_MOVED_TO, movedTo))
  }

  close(): void {
    this.#connection.close()
  }

  #count(): MoveCounts {
    const counted = this.#all<Omit<MoveCounts, 'returned'>>(sql.COUNTS, this.#nowMs)[0]!
    const ranges = this.subscriptions().flatMap(({ returned }) => returned)
    return { ...counted, returned: ranges.reduce((total, { from, to }) => total + to - from, 0) }
  }

  #positions(subscriptionId: number): [partition: number, offset: number][] {
    const rows = this.#all<{ partition: number; offset: number }>(sql.POSITIONS, subscriptionId)
    return rows.map(({ partition, offset }) => [partition, offset])
  }

  #returned(subscriptionId: number): MovedRange[] {
    return this.#all<StoredRange>(sql.RANGES, subscriptionId).flatMap((row) => {
      const { partition, crashes } = row
      return bitsOf(row)
        .openRanges()
        .map(([from, to]) => ({ partition, from, to, crashes }))
    })
  }

  #all<Row>(text: string, ...values: number[]): Row[] {
    try {
      return this.#connection.all<Row>(text, ...values)
    } catch (error) {
      throw describeFailure(error, this.#connection.file)
    }
  }
}

function refuseBroken(connection: Connection): void {
  for (const text of [BROKEN_PLACES, sql.BROKEN_LOG]) {
    const found = connection.get<{ problem: string }>(text)
    if (!found) continue
    const problem = found.problem.replace(/\.$/, '')
    throw new PosthornError('POSTHORN_STORAGE_CORRUPT', { store: connection.file, problem })
  }
}
