/**
 * Moves everything of one store into another, of another engine. The log goes first, partition by partition; then all the
 * rest in one transaction, which is committed only if as much has arrived as has left. At last the source is marked, so
 * that a process that was left on it does not do everything a second time.
 *
 * It may be ended at any moment and begun again: of the log, what has arrived and is as it is in the source stays.
 */
import type { BatchSummary, MoveClaim, MoveCounts, MoveSource, MoveTarget, PartitionName } from '../engines/index.ts'
import type { Clock } from '../environment/index.ts'
import { PosthornError } from '../errors.ts'

export interface MoveProgress {
  /** Messages of the log, those that were there already too. */
  readonly moved: number
  readonly messages: number
}

export interface MoveReport {
  readonly from: string
  readonly to: string
  /** An earlier run has done everything. */
  readonly wasComplete: boolean
  readonly finishedAt: string
  readonly moved: MoveCounts
}

/**
 * Resolves once everything is in the target, durably. Rejects with POSTHORN_TARGET_NOT_EMPTY, POSTHORN_STORE_IN_USE or
 * POSTHORN_MOVE_INCOMPLETE, with POSTHORN_STORE_MOVED if everything lives on in another target, or with what is wrong
 * with one of the stores.
 */
export async function move(
  source: MoveSource,
  target: MoveTarget,
  clock: Clock,
  onProgress: (progress: MoveProgress) => void,
): Promise<MoveReport> {
  const ends = { from: source.store, to: target.store }
  refuseMoved(source, target)
  const finished = await target.begin(claimOf(source), clock.now())
  if (finished) {
    source.leave(target.store)
    return { ...ends, wasComplete: true, finishedAt: toText(finished.finishedAtMs), moved: finished.counts }
  }
  await moveLog(source, target, onProgress)
  const finishedAtMs = clock.now()
  await target.complete(source, (arrived) => refuseDifference(source, target, arrived), finishedAtMs)
  source.leave(target.store)
  return { ...ends, wasComplete: false, finishedAt: toText(finishedAtMs), moved: source.counts }
}

/** In two targets, all of it would be handled twice. */
function refuseMoved({ store, movedTo }: MoveSource, target: MoveTarget): void {
  if (movedTo === undefined || movedTo === target.store) return
  throw new PosthornError('POSTHORN_STORE_MOVED', { store, movedTo })
}

function claimOf(source: MoveSource): MoveClaim {
  const { store, storeId, fingerprint, counts } = source
  return { store, storeId, fingerprint, counts, topicIds: source.topics().map(({ topicId }) => topicId) }
}

async function moveLog(
  source: MoveSource,
  target: MoveTarget,
  onProgress: (progress: MoveProgress) => void,
): Promise<void> {
  let moved = 0
  const advance = (messages: number) => {
    moved += messages
    onProgress({ moved, messages: source.counts.messages })
  }
  for (const partition of source.partitions()) {
    const from = await resume(source, target, partition, advance)
    await target.addBatches(source.batches(partition, from), advance)
  }
}

/** Where the partition is to be gone on with. */
async function resume(
  source: MoveSource,
  target: MoveTarget,
  partition: PartitionName,
  advance: (messages: number) => void,
): Promise<number> {
  const arrived = await target.summary(partition)
  if (arrived.batches === 0) return 0
  if (isSame(arrived, source.summary(partition, arrived.to))) {
    advance(arrived.messages)
    return arrived.to
  }
  await target.dropBatches(partition)
  return 0
}

function isSame(one: BatchSummary, other: BatchSummary): boolean {
  return (['batches', 'messages', 'from', 'to'] as const).every((name) => one[name] === other[name])
}

function refuseDifference({ counts }: MoveSource, { store }: MoveTarget, arrived: MoveCounts): void {
  const names = Object.keys(counts) as (keyof MoveCounts)[]
  const wrong = names.filter((name) => arrived[name] !== counts[name])
  if (wrong.length === 0) return
  const problem = wrong.map((name) => `${arrived[name]} ${name} instead of ${counts[name]}`).join(', ')
  throw new PosthornError('POSTHORN_MOVE_INCOMPLETE', { store, problem })
}

function toText(timeMs: number): string {
  return new Date(timeMs).toISOString()
}
