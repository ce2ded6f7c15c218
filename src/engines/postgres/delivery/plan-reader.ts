import type { Failure, StoredMessage } from '../../../engine.ts'
import type { PosthornError } from '../../../errors.ts'
import type { MessageRange } from '../log/batches.ts'
import * as sql from '../sql/turns.ts'
import type { GrantingParts, Planned } from './granting.ts'
import { holesIn } from './holes.ts'
import { contains } from './lease.ts'
import type { Turn } from './turns.ts'

export interface FoundMessages {
  readonly planned: Planned
  readonly messages: readonly StoredMessage[]
}

export interface PlanRead {
  /** Those of which there is something to hand out. */
  readonly found: readonly FoundMessages[]
  readonly damaged: readonly Error[]
}

type IsCancelled = (partition: number, offset: number) => boolean

/** Reads the messages of new leases, and ends in them what cannot be handed out. */
export class PlanReader {
  readonly #parts: Pick<GrantingParts, 'batches' | 'settling'>

  constructor(parts: Pick<GrantingParts, 'batches' | 'settling'>) {
    this.#parts = parts
  }

  async read(turn: Turn, source: string, planned: readonly Planned[]): Promise<PlanRead> {
    const inLog = planned.filter(({ row }) => row?.event === undefined)
    const { topicId } = turn.subscription
    const ranges = inLog.map(({ lease: { partition, open } }) => ({
      topicId,
      partition,
      from: open[0]!,
      to: open.at(-1)!,
    }))
    const isCancelled = await this.#cancelled(turn, ranges)
    const read = await this.#parts.batches.read(turn.rows, ranges)
    const { messages } = read
    const damaged = [...read.damaged, ...(await holesIn(turn, ranges, read))]
    const found: FoundMessages[] = []
    const gone: Planned[] = []
    for (const one of planned) {
      const place = inLog.indexOf(one)
      const there =
        place === -1 ? [] : messages[place]!.filter(({ offset }) => !isCancelled(one.lease.partition, offset))
      const lost = damaged.filter(({ range }) => range === place).flatMap(({ from, to }) => [from, to])
      if (place !== -1) one.lease.open = openRanges(one.lease.open, there, lost)
      if (one.lease.open.length === 0) gone.push(one)
      else if (place === -1 || there.length > 0) found.push({ planned: one, messages: there })
    }
    await this.#forget(turn, gone)
    for (const { range, from, to, error } of damaged) await this.#bury(turn, source, inLog[range]!, from, to, error)
    return { found, damaged: damaged.map(({ error }) => error) }
  }

  async #cancelled({ rows, subscription }: Turn, ranges: readonly MessageRange[]): Promise<IsCancelled> {
    if (!subscription.hasCancelled || ranges.length === 0) return () => false
    const found = await rows.rows<{ partition: number; offset: number }>(
      sql.turns.cancelledIn,
      subscription.topicId,
      ranges.map(({ partition }) => partition),
      ranges.map(({ from }) => from),
      ranges.map(({ to }) => to),
    )
    const places = new Set(found.map(({ partition, offset }) => `${partition}:${offset}`))
    return (partition, offset) => places.has(`${partition}:${offset}`)
  }

  // Nothing of them is left in the log, or all is cancelled.
  async #forget(turn: Turn, gone: readonly Planned[]): Promise<void> {
    for (const { lease } of gone) turn.state.leases.delete(lease.id)
    const rows = gone.flatMap(({ row }) => row ?? [])
    if (rows.length > 0) await this.#parts.settling.forgetRows(turn, rows)
  }

  async #bury(
    turn: Turn,
    source: string,
    { lease }: Planned,
    from: number,
    to: number,
    error: PosthornError,
  ): Promise<void> {
    const { name, code, message } = error
    const failure: Failure = { attempt: 1, atMs: turn.nowMs, name, code, message }
    const exceptions = Array.from({ length: to - from }, (_, step) => {
      return { offset: from + step, kind: 'dead', reason: 'damaged', failure } as const
    })
    await this.#parts.settling.settle(turn, source, [{ lease: lease.id, acked: [], exceptions }])
  }
}

/** Of `open`, what is there or damaged. */
function openRanges(open: readonly number[], there: readonly StoredMessage[], damaged: readonly number[]): number[] {
  const ranges: number[] = []
  const isWhole = damaged.length === 0 && there.length === open[1]! - open[0]!
  if (isWhole) return [...open]
  const offsets = new Set(there.map(({ offset }) => offset))
  for (let offset = open[0]!; offset < open.at(-1)!; offset++) {
    if (!offsets.has(offset) && !contains(damaged, offset)) continue
    if (ranges.at(-1) === offset) ranges[ranges.length - 1] = offset + 1
    else ranges.push(offset, offset + 1)
  }
  return ranges
}
