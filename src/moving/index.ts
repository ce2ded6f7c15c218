import { loadMoveSource, loadMoveTarget, loadReopen } from '../engines/index.ts'
import type { Clock } from '../environment/index.ts'
import { type MoveProgress, type MoveReport, move } from './move.ts'

export type { MoveProgress, MoveReport } from './move.ts'

export interface MoveOptions {
  readonly from: string
  readonly to: string
  readonly clock: Clock
  onProgress(progress: MoveProgress): void
}

/**
 * Moves a store to another engine. Nobody may use either of them. May be ended at any moment and called again. Rejects
 * with POSTHORN_INVALID_OPTION for what it cannot move, and with what `move` says.
 */
export async function moveStore({ from, to, clock, onProgress }: MoveOptions): Promise<MoveReport> {
  const [openSource, openTarget] = await Promise.all([loadMoveSource(from), loadMoveTarget(to)])
  // The target first: opening a file of an older version changes it, which a wrong target is no reason for.
  const target = await openTarget(to)
  try {
    const source = await openSource(from, clock.now())
    try {
      return await move(source, target, clock, onProgress)
    } finally {
      source.close()
    }
  } finally {
    await target.close()
  }
}

/** Lets a store be used again that was moved. Resolves with whether it was. Nobody may have it open. */
export async function reopenStore(url: string, clock: Clock): Promise<boolean> {
  const reopen = await loadReopen(url)
  return await reopen(url, clock.now())
}
