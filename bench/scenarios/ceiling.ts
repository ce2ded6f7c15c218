import type { Bench, Scenario, Site } from '../bench.ts'
import { percentile } from '../statistics.ts'

/** What the disk, and one thread of SQLite or one session of Postgres, can do at best: what the other figures are compared with. */
export const ceiling: Scenario = {
  name: 'ceiling',
  measure(bench: Bench) {
    const { syncs, ceilingMessages } = bench.scale
    return bench.repeat(async (site) => {
      const { processes, file } = site
      const storage = processes.actor('storage')
      const durationsMs = await storage.sync({ file, times: syncs })
      const { publishPerSecond, readPerSecond } = await measureBatches(bench, site, ceilingMessages)
      return {
        fdatasync_ms_p50: percentile(durationsMs, 0.5),
        fdatasync_ms_p99: percentile(durationsMs, 0.99),
        ceiling_publish_per_s: publishPerSecond,
        ceiling_read_per_s: readPerSecond,
      }
    })
  },
}

function measureBatches({ engine }: Bench, { processes, url, file }: Site, messages: number) {
  if (engine === 'postgres') return processes.actor('postgresStorage').batches({ url, messages })
  return processes.actor('storage').batches({ file: `${file}-batches`, messages })
}
