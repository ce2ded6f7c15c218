/**
 * The results of finished steps, a row each. They go with the acknowledgement of their message, which says that there are
 * some; what is left behind otherwise (by a handler that no longer has steps, or by what retention deletes) goes with
 * `sweep`.
 */
import type { LeaseId } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import { fromStoredText, toStoredText } from '../database/text.ts'
import { contains } from '../delivery/lease.ts'
import type { Turn } from '../delivery/turns.ts'
import { settlement } from '../sql/settlement.ts'
import { steps as sql } from '../sql/steps.ts'
import type { MessagePlace } from './changes.ts'
import { eachRun } from './runs.ts'

interface Step {
  readonly name: string
  readonly result: string
}

export class Steps {
  /** The results of a leased message by name. Rejects with POSTHORN_LEASE_LOST. */
  async of(turn: Turn, source: string, lease: LeaseId, offset: number): Promise<ReadonlyMap<string, string>> {
    const partition = heldIn(turn, source, lease, offset) ?? refuseLost(turn)
    const found = await turn.rows.rows<Step>(sql.read, turn.subscription.subscriptionId, partition, offset)
    return new Map(found.map(({ name, result }) => [fromStoredText(name), result]))
  }

  /** Of a leased message, or of one that failed under the lease and waits. Rejects with POSTHORN_LEASE_LOST. */
  async record(
    turn: Turn,
    source: string,
    lease: LeaseId,
    offset: number,
    name: string,
    result: string,
  ): Promise<void> {
    const held = heldIn(turn, source, lease, offset)
    const partition = held ?? (await failedIn(turn, lease, offset)) ?? refuseLost(turn)
    const { subscriptionId } = turn.subscription
    turn.rows.send(sql.record, subscriptionId, partition, offset, toStoredText(name), result)
  }

  forget({ rows, subscription }: Turn, places: readonly MessagePlace[]): void {
    if (places.length === 0) return
    const partitions = places.map(({ partition }) => partition)
    const offsets = places.map(({ offset }) => offset)
    rows.send(sql.forget, subscription.subscriptionId, partitions, offsets)
  }

  /** Forgets those of all messages that are neither delivered again nor dead letters. */
  async sweep(turn: Turn): Promise<void> {
    await turn.rows.run(sql.sweep, turn.subscription.subscriptionId, ...keptColumns(turn))
  }

  /** The same, of messages at these places. */
  async sweepPlaces(turn: Turn, places: readonly MessagePlace[]): Promise<void> {
    if (places.length === 0) return
    const partitions = places.map(({ partition }) => partition)
    const offsets = places.map(({ offset }) => offset)
    const { subscriptionId } = turn.subscription
    await turn.rows.run(sql.sweepPlaces, subscriptionId, ...keptColumns(turn), partitions, offsets)
  }
}

interface Range {
  readonly partition: number
  readonly from: number
  readonly to: number
}

/** What is to come through the cursor or with a range, or is leased. */
function keptRanges({ state }: Turn): Range[] {
  const kept: Range[] = [...state.returned]
  for (const [partition, from] of state.cursors) kept.push({ partition, from, to: Number.MAX_SAFE_INTEGER })
  for (const { partition, open } of state.leases.values()) {
    eachRun(open, (from, to) => void kept.push({ partition, from, to }))
  }
  return kept
}

function keptColumns(turn: Turn): [number[], number[], number[]] {
  const kept = keptRanges(turn)
  return [kept.map(({ partition }) => partition), kept.map(({ from }) => from), kept.map(({ to }) => to)]
}

function heldIn({ state }: Turn, source: string, id: LeaseId, offset: number): number | undefined {
  const lease = state.heldBy(source, id)
  return lease && contains(lease.open, offset) ? lease.partition : undefined
}

async function failedIn(
  { rows, subscription, state }: Turn,
  lease: LeaseId,
  offset: number,
): Promise<number | undefined> {
  const values = [subscription.subscriptionId, [...state.cursors.keys()], offset, lease, state.leasedRows()]
  const [found] = await rows.rows<{ partition: number }>(settlement.failedUnder, ...values)
  return found?.partition
}

function refuseLost({ subscription: { subscription } }: Turn): never {
  throw new PosthornError('POSTHORN_LEASE_LOST', {
    subscription,
    reason: 'it is not held by this consumer any more',
  })
}
