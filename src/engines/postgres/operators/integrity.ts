/**
 * Looks for what cannot come about while the store is sound. It reads all batches, a stretch at a time and without holding
 * anything up; what is under way it reads at one moment.
 */
import { batchChecksum } from '../../checksum.ts'
import type { Database } from '../database/database.ts'
import type { Queryable } from '../database/statement.ts'
import { DeliveryState } from '../delivery/delivery-state.ts'
import { inspection as sql } from '../sql/inspection.ts'
import { outbox } from '../sql/outbox.ts'
import type { PartitionRow } from './inspection.ts'
import { readOneMoment } from './one-moment.ts'

interface BatchRow {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly checksum: number
  readonly shared: string
  readonly data: string
}

/** Offsets `[from, to)` that no batch holds, or that several do. */
interface Gap {
  readonly topicId: number
  readonly partition: number
  readonly from: number
  readonly to: number
}

interface StoredState {
  readonly subscriptionId: number
  readonly topicId: number
  readonly topic: string
  readonly subscription: string
  readonly state: string
}

/** What the states of subscriptions are compared with. */
interface Surroundings {
  readonly nextOffsets: ReadonlyMap<string, number>
  readonly rowCounts: ReadonlyMap<number, number>
  readonly rowsThere: ReadonlySet<number>
}

const BYTES_AT_ONCE = 8 * 2 ** 20

/** Everything that is wrong with the store, in words. */
export async function findProblems(database: Database): Promise<string[]> {
  const batches = await checkBatches(database)
  return batches.concat(await readOneMoment(database, checkStates), await findStranded(database))
}

/** Publications that were committed with their transactions and that the log did not take. */
async function findStranded(database: Database): Promise<string[]> {
  const rows = await database.rows<{ topic: string; code: string; groups: number }>(outbox.stranded)
  return rows.map(({ topic, code, groups }) => {
    return `Topic '${topic}': ${groups} committed publications could not be put into the log (${code}); the table stranded holds them.`
  })
}

async function checkBatches(database: Database): Promise<string[]> {
  const check = new BatchCheck(await database.rows<PartitionRow>(sql.partitions, null))
  const place = [-1, -1, -1]
  for (;;) {
    const batches = await database.rows<BatchRow>(sql.batchesAfter, ...place, BYTES_AT_ONCE)
    for (const batch of batches) check.add(batch)
    const last = batches.at(-1)
    if (!last) break
    place.splice(0, place.length, last.topicId, last.partition, last.baseOffset)
  }
  const [names, ends] = await Promise.all([
    database.rows<{ topicId: number; topic: string }>(sql.topicNames),
    database.rows<PartitionRow>(sql.partitions, null),
  ])
  return check.problems(new Map(names.map(({ topicId, topic }) => [topicId, topic])), ends)
}

/** Follows the batches of each partition, in their order, from where what is kept begins. */
class BatchCheck {
  readonly #ends: Map<string, number>
  readonly #damaged: Gap[] = []
  readonly #gaps: Gap[] = []

  constructor(partitions: readonly PartitionRow[]) {
    this.#ends = new Map(partitions.map((partition) => [nameOf(partition), partition.firstOffset]))
  }

  add(batch: BatchRow): void {
    const { topicId, partition, baseOffset: from, count, checksum } = batch
    const end = this.#ends.get(nameOf(batch)) ?? 0
    const to = from + count
    // A purge that was interrupted leaves batches that are out of reach.
    if (to <= end) return
    if (batchChecksum(batch) !== checksum) this.#damaged.push({ topicId, partition, from, to })
    if (from !== end) this.#gaps.push({ topicId, partition, from: Math.min(from, end), to: Math.max(from, end) })
    this.#ends.set(nameOf(batch), to)
  }

  /** Of what retention or operators have deleted since, nothing is said. */
  problems(topics: ReadonlyMap<number, string>, ends: readonly PartitionRow[]): string[] {
    const floors = new Map(ends.map((end) => [nameOf(end), end.firstOffset]))
    const isKept = (gap: Gap) => topics.has(gap.topicId) && gap.to > (floors.get(nameOf(gap)) ?? 0)
    const describe = (problem: string) => (gap: Gap) => {
      const { topicId, partition, from, to } = gap
      return `Messages ${from} to ${to - 1} of topic ${topics.get(topicId)}, partition ${partition}, ${problem}.`
    }
    return [
      ...this.#damaged.filter(isKept).map(describe('are damaged')),
      ...this.#gaps.filter(isKept).map(describe('are missing, or stored twice')),
    ]
  }
}

async function checkStates(rows: Queryable): Promise<string[]> {
  const [stored, ends, counts] = await Promise.all([
    rows.rows<StoredState>(sql.states, null),
    rows.rows<PartitionRow>(sql.partitions, null),
    rows.rows<{ subscriptionId: number; messages: number }>(sql.rowCounts),
  ])
  const problems: string[] = []
  const parsed = stored.flatMap((row) => {
    const state = tryParse(row.state)
    if (!state) problems.push(`What is under way in ${describeSubscription(row)} cannot be read.`)
    return state ? [{ row, state }] : []
  })
  const leased = parsed.flatMap(({ state }) => state.leasedRows())
  const there = await rows.rows<{ rowId: number }>(sql.rowsThere, leased)
  const surroundings: Surroundings = {
    nextOffsets: new Map(ends.map((end) => [nameOf(end), end.nextOffset])),
    rowCounts: new Map(counts.map(({ subscriptionId, messages }) => [subscriptionId, messages])),
    rowsThere: new Set(there.map(({ rowId }) => rowId)),
  }
  return problems.concat(parsed.flatMap(({ row, state }) => checkState(row, state, surroundings)))
}

function checkState(row: StoredState, state: DeliveryState, surroundings: Surroundings): string[] {
  const name = describeSubscription(row)
  const problems: string[] = []
  for (const [partition, cursor] of state.cursors) {
    const next = surroundings.nextOffsets.get(nameOf({ topicId: row.topicId, partition })) ?? 0
    if (cursor > next) problems.push(`The cursor of ${name} lies beyond the end of partition ${partition}.`)
  }
  for (const { id, rowId } of state.leases.values()) {
    const isThere = rowId === undefined || surroundings.rowsThere.has(rowId)
    if (!isThere) problems.push(`Lease ${id} of ${name} is for a message that is not set aside.`)
  }
  if (!areSound(state)) problems.push(`Leases or returned messages of ${name} overlap, or make no sense.`)
  const setAside = surroundings.rowCounts.get(row.subscriptionId) ?? 0
  if (setAside !== state.setAside) {
    problems.push(`${setAside} messages of ${name} are set aside, and ${state.setAside} are accounted for.`)
  }
  return problems
}

/** Behind the cursor, each message is under one lease at most, or returned. */
function areSound({ leases, returned, cursors }: DeliveryState): boolean {
  const ranges = returned.map(({ partition, from, to }) => ({ partition, from, to }))
  for (const { partition, open, rowId } of leases.values()) {
    if (open.length === 0) return false
    if (rowId !== undefined) continue
    for (let place = 0; place < open.length; place += 2) {
      ranges.push({ partition, from: open[place]!, to: open[place + 1]! })
    }
  }
  const sorted = ranges.toSorted((one, other) => one.partition - other.partition || one.from - other.from)
  return sorted.every(({ partition, from, to }, place) => {
    const before = sorted[place - 1]
    const isApart = before?.partition !== partition || before.to <= from
    return isApart && from >= 0 && from < to && to <= (cursors.get(partition) ?? 0)
  })
}

function tryParse(text: string): DeliveryState | undefined {
  try {
    return DeliveryState.parse(text)
  } catch {
    return undefined
  }
}

function nameOf({ topicId, partition }: { readonly topicId: number; readonly partition: number }): string {
  return `${topicId}/${partition}`
}

function describeSubscription({ topic, subscription }: StoredState): string {
  return `subscription ${subscription} of topic ${topic}`
}
