import type { StartPosition } from '../../../engine.ts'
import type { DeliveryState } from '../delivery/delivery-state.ts'
import type { Turn } from '../delivery/turns.ts'
import type { BatchReader } from '../log/batches.ts'
import { locate } from '../log/positions.ts'
import type { Chains } from '../order/chains.ts'
import type { DeadLetters } from '../settlement/dead-letters.ts'
import { subtract } from '../settlement/runs.ts'
import type { SetAside } from '../settlement/set-aside.ts'
import type { Steps } from '../settlement/steps.ts'

export interface SeekParts {
  readonly batches: BatchReader
  readonly setAside: SetAside
  readonly deadLetters: DeadLetters
  readonly chains: Chains
  readonly steps: Steps
}

/** Moves a subscription to a position; partitions that the position does not name stay where they are. */
export async function seek(turn: Turn, parts: SeekParts, position: StartPosition): Promise<void> {
  const offsets = await locate(turn.rows, parts.batches, turn.subscription.topicId, position)
  // Nobody is to find the steps of what was settled when it comes again.
  await parts.steps.sweep(turn)
  for (const [partition, offset] of offsets) takeBack(turn.state, partition, offset)
  await Promise.all(Array.from(offsets, ([partition, offset]) => seekRows(turn, parts, partition, offset)))
  // Nor those of what was passed over, when it comes with another seek.
  await parts.steps.sweep(turn)
}

/** What stands at or after `offset` comes again through the cursor, so it must not be leased or wait as well. */
function takeBack(state: DeliveryState, partition: number, offset: number): void {
  for (const lease of state.leases.values()) {
    if (lease.partition !== partition || lease.open.at(-1)! <= offset) continue
    state.leases.delete(lease.id)
    const before = subtract(lease.open, [offset, Number.MAX_SAFE_INTEGER])
    for (let place = 0; place < before.length; place += 2) {
      const [from, to] = [before[place]!, before[place + 1]!]
      state.giveBack({ partition, from, to, crashes: lease.crashes })
    }
  }
  state.returned = state.returned.flatMap((range) => {
    if (range.partition !== partition || range.to <= offset) return [range]
    return range.from < offset ? [{ ...range, to: offset }] : []
  })
  state.cursors.set(partition, offset)
}

/** The statements are carried out in this order: what waited for messages that are gone goes on. */
async function seekRows(turn: Turn, parts: SeekParts, partition: number, offset: number): Promise<void> {
  await Promise.all([
    parts.setAside.removeFrom(turn, partition, offset),
    parts.deadLetters.unblock(turn, partition, offset),
    parts.chains.advanceAll(turn, partition),
  ])
}
