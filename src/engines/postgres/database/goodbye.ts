import type pg from 'pg'
import { systemClock } from '../../../environment/index.ts'

const GOODBYE_MS_MAX = 1_000

/** Ends a connection, and drops it if nobody at its other end answers within a moment. */
export async function endClient(client: pg.Client): Promise<void> {
  dropUnlessEnded(client)
  await client.end().catch(() => {})
}

/** Of a connection that is ending: in a network that went silent it would keep the process alive for many minutes. */
export function dropUnlessEnded(client: pg.Client): void {
  const timer = systemClock.setTimer(GOODBYE_MS_MAX, () => client.connection.stream.destroy())
  client.once('end', () => timer.cancel())
}
