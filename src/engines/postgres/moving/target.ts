/**
 * A store in Postgres that another one is moved into.
 *
 * States of the store, as far as a move is concerned: *empty*; *claimed* by one source, which is a row of `moves` and, as
 * it goes on, batches of topics that are not there yet; and *finished*, when the topics and all the rest are there. Each
 * change of state is one transaction that holds the lock of `moves`, so that it waits for what an earlier run that was
 * killed may still be about to commit. A run that ends anywhere leaves a claimed store; the next one keeps the batches
 * of each partition that are as they are in the source, and drops the others.
 *
 * Applications that connect to a claimed store are refused. If one that was connected before makes a topic, the move is
 * refused from then on.
 */
import { PosthornError } from '../../../errors.ts'
import type {
  BatchSummary,
  FinishedMove,
  MoveClaim,
  MoveContents,
  MoveCounts,
  MovedBatch,
  MoveTarget,
  OpenMoveTarget,
  PartitionName,
} from '../../moving.ts'
import { parsePostgresAddress } from '../address.ts'
import { Database } from '../database/database.ts'
import { migrate } from '../database/migrate.ts'
import type { Queryable } from '../database/statement.ts'
import { textArray } from '../log/text-array.ts'
import { moving } from '../sql/moving.ts'
import { countAll, Filling, storedBatch } from './filling.ts'
import { columnsOf, portions } from './portions.ts'

interface MoveRow {
  readonly storeId: string
  readonly store: string
  readonly topicIds: string
  readonly finishedAtMs: number | null
  readonly fingerprint: string | null
  readonly counts: string | null
}

/** Batches of a partition whose first offsets are from `from` up to, not including, `to`. `topicId`: as it is here. */
interface Stretch extends PartitionName {
  readonly from: number
  readonly to: number
}

/** Offsets whose batches are deleted together. */
const DROPPED_AT_ONCE = 20_000

/** Opens `postgres://...`, and makes the tables that are not there. */
export const openPostgresMoveTarget: OpenMoveTarget = async (url) => {
  const database = new Database(parsePostgresAddress(url))
  try {
    await migrate(database)
    return new PostgresMoveTarget(database)
  } catch (error) {
    await database.close()
    throw error
  }
}

class PostgresMoveTarget implements MoveTarget {
  readonly store: string
  readonly #database: Database
  #claim: MoveClaim | undefined
  #topicIds = new Map<number, number>()

  constructor(database: Database) {
    this.#database = database
    this.store = database.address.label
  }

  async begin(claim: MoveClaim, nowMs: number): Promise<FinishedMove | undefined> {
    this.#claim = claim
    const finished = await this.#claimStore(claim, nowMs)
    if (finished) return finished
    // Of topics that the source had when an earlier run was interrupted.
    const strangers = await this.#database.rows<Stretch>(moving.strangers, [...this.#topicIds.values()])
    for (const stretch of strangers) await this.#drop(stretch)
    return undefined
  }

  #claimStore(claim: MoveClaim, nowMs: number): Promise<FinishedMove | undefined> {
    return this.#database.transaction(async (rows) => {
      await rows.run(moving.lockMoves)
      const [move] = await rows.rows<MoveRow>(moving.moves)
      if (move) this.#refuseOther(move, claim)
      if (typeof move?.finishedAtMs === 'number') return finishedMove(move)
      await this.#refuseUsed(rows, nowMs)
      await this.#assignTopics(rows, claim, move?.topicIds ?? '[]')
      return undefined
    })
  }

  async summary({ topicId, partition }: PartitionName): Promise<BatchSummary> {
    const [summary] = await this.#database.rows<BatchSummary>(moving.summary, this.#topicIds.get(topicId), partition)
    return summary!
  }

  async dropBatches({ topicId, partition }: PartitionName): Promise<void> {
    const { from, to } = await this.summary({ topicId, partition })
    await this.#drop({ topicId: this.#topicIds.get(topicId)!, partition, from, to })
  }

  async addBatches(batches: Iterable<MovedBatch>, onStored: (messages: number) => void): Promise<void> {
    for (const portion of portions(batches)) {
      const stored = portion.map((batch) => storedBatch(this.#topicIds.get(batch.topicId)!, batch))
      const numbers = columnsOf(stored.map(({ numbers }) => numbers))
      const shared = textArray(stored.map(({ shared }) => shared))
      const data = textArray(stored.map(({ data }) => data))
      await this.#database.run(moving.addBatches, ...numbers, shared, data)
      onStored(portion.reduce((messages, { count }) => messages + count, 0))
    }
  }

  async complete(contents: MoveContents, check: (arrived: MoveCounts) => void, nowMs: number): Promise<void> {
    const { storeId, fingerprint } = this.#claim!
    await this.#database.transaction(async (rows) => {
      await rows.run(moving.lockMoves)
      await rows.run(moving.lockTopics)
      await this.#refuseUsed(rows, nowMs)
      await new Filling(rows, contents, this.#topicIds).fill(nowMs)
      const arrived = await countAll(rows)
      check(arrived)
      await rows.run(moving.finishMove, storeId, nowMs, fingerprint, JSON.stringify(arrived))
    })
  }

  async close(): Promise<void> {
    await this.#database.close()
  }

  // No statement takes long, however much there is.
  async #drop({ topicId, partition, from, to }: Stretch): Promise<void> {
    for (let start = from; start < to; start += DROPPED_AT_ONCE) {
      await this.#database.run(moving.dropStretch, topicId, partition, start, Math.min(to, start + DROPPED_AT_ONCE))
    }
  }

  #refuseOther(move: MoveRow, { storeId, fingerprint }: MoveClaim): void {
    const isFinished = move.finishedAtMs !== null
    if (move.storeId !== storeId) {
      throw this.#notEmpty(`${move.store} ${isFinished ? 'was' : 'has begun to be'} moved into it`)
    }
    if (!isFinished || move.fingerprint === fingerprint) return
    throw this.#notEmpty(`${move.store} was moved into it before, and has been used since`)
  }

  async #refuseUsed(rows: Queryable, nowMs: number): Promise<void> {
    const topics = await rows.rows<{ topic: string }>(moving.topicNames)
    if (topics.length > 0) throw this.#notEmpty(`it has the topics ${topics.map(({ topic }) => topic).join(', ')}`)
    const living = await rows.rows<{ host: string; pid: number }>(moving.living, nowMs)
    if (living.length === 0) return
    const users = living.map(({ host, pid }) => `process ${pid} on ${host}`).join(', ')
    throw new PosthornError('POSTHORN_STORE_IN_USE', { store: this.store, users })
  }

  /** Gives each topic of the source its id here. */
  async #assignTopics(rows: Queryable, { storeId, store, topicIds }: MoveClaim, known: string): Promise<void> {
    const assigned = new Map(JSON.parse(known) as [number, number][])
    const wanted = new Set(topicIds)
    for (const there of [...assigned.keys()]) if (!wanted.has(there)) assigned.delete(there)
    const unassigned = topicIds.filter((there) => !assigned.has(there))
    const fresh = await rows.rows<{ topicId: number }>(moving.newTopicIds, unassigned.length)
    for (const [place, there] of unassigned.entries()) assigned.set(there, fresh[place]!.topicId)
    await rows.run(moving.keepMove, storeId, store, JSON.stringify([...assigned]))
    this.#topicIds = assigned
  }

  #notEmpty(problem: string): PosthornError {
    return new PosthornError('POSTHORN_TARGET_NOT_EMPTY', { store: this.store, problem })
  }
}

function finishedMove({ finishedAtMs, fingerprint, counts }: MoveRow): FinishedMove {
  return { finishedAtMs: finishedAtMs!, fingerprint: fingerprint!, counts: JSON.parse(counts!) as MoveCounts }
}
