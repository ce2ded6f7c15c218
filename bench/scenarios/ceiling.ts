import type { Bench, Scenario } from '../bench.ts'
import { percentile } from '../statistics.ts'

/** What the disk and one thread of SQLite can do at best: what the other figures are compared with. */
export const ceiling: Scenario = {
  name: 'ceiling',
  measure(bench: Bench) {
    const { syncs, ceilingMessages } = bench.scale
    return bench.repeat(async ({ processes, file, store }) => {
      const storage = processes.actor('storage')
      const durationsMs = await storage.sync({ file, times: syncs })
      const { publishPerSecond, readPerSecond } = await storage.batches({
        file: store,
        messages: ceilingMessages,
      })
      return {
        fdatasync_ms_p50: percentile(durationsMs, 0.5),
        fdatasync_ms_p99: percentile(durationsMs, 0.99),
        ceiling_publish_per_s: publishPerSecond,
        ceiling_read_per_s: readPerSecond,
      }
    })
  },
}
