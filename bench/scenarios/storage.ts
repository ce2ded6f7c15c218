import { setTimeout } from 'node:timers/promises'
import type { Size } from '../actors/postgres-sizes.ts'
import type { Bench, Scenario, Site } from '../bench.ts'

/** Two billion messages a day. */
const PER_SECOND = 23_148
const SAMPLE_EVERY_MS = 2_000
const BYTES_PER_MB = 1_048_576
/** Of the JSON of one message, roughly. */
const MESSAGE_BYTES = 300

/**
 * How large the store becomes while messages go through it: queued jobs, which may be deleted once they are handled, of
 * which some fail at first and some have ids. Bounded means that the second half of them needs no more than the first.
 */
export const storage: Scenario = {
  name: 'storage',
  async measure(bench) {
    if (bench.engine !== 'postgres') return {}
    return bench.atSite(async (site) => {
      const traffic = site.processes.actor('traffic')
      await traffic.open({ url: site.url })
      const messages = bench.scale.storageMessages
      const { sizes, halfway } = await sample(
        bench,
        site,
        traffic.run({ messages, perSecond: PER_SECOND }),
        async () => {
          return (await traffic.handled()) / messages
        },
      )
      await traffic.close()
      const first = largest(sizes.slice(0, Math.max(1, halfway)))
      const second = largest(sizes.slice(halfway))
      return {
        storage_messages: messages,
        storage_published_mb: (messages * MESSAGE_BYTES) / BYTES_PER_MB,
        storage_first_half_tables_mb: first.tablesMb,
        storage_second_half_tables_mb: second.tablesMb,
        storage_first_half_indexes_mb: first.indexesMb,
        storage_second_half_indexes_mb: second.indexesMb,
      }
    })
  },
}

function largest(sizes: readonly Size[]): Size {
  return {
    tablesMb: Math.max(...sizes.map(({ tablesMb }) => tablesMb)),
    indexesMb: Math.max(...sizes.map(({ indexesMb }) => indexesMb)),
  }
}

/** Takes sizes until the work is over. `halfway`: the number of the first one of the second half. */
async function sample(bench: Bench, { processes, url }: Site, work: Promise<void>, share: () => Promise<number>) {
  const meter = processes.actor('postgresSizes')
  const sizes: Size[] = []
  let halfway = 0
  let isOver = false
  const over = work.finally(() => {
    isOver = true
  })
  over.catch(() => {})
  while (!isOver) {
    await Promise.race([over, setTimeout(SAMPLE_EVERY_MS, undefined, { ref: false })])
    const done = await share()
    if (done < 0.5) halfway = sizes.length + 1
    sizes.push(await meter.now({ url }))
    bench.progress(`${Math.round(done * 100)} % of the messages, ${await meter.largest({ url })}`)
  }
  await over
  return { sizes, halfway: Math.min(halfway, sizes.length - 1) }
}
