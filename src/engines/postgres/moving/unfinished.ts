import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import { moving } from '../sql/moving.ts'

/**
 * Rejects with POSTHORN_MOVE_UNFINISHED when a store is on its way into this one: whoever used it now would keep the rest
 * from arriving.
 */
export async function refuseUnfinishedMove(database: Database): Promise<void> {
  const [unfinished] = await database.rows<{ moved: string }>(moving.unfinished)
  if (!unfinished) return
  throw new PosthornError('POSTHORN_MOVE_UNFINISHED', { ...unfinished, store: database.address.label })
}
