import { setTimeout } from 'node:timers/promises'
import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, summarise } from '../statistics.ts'

const KEYS = 1_000
const CONCURRENCY = 1_000
const LOOK_MS = 5
const MS_PER_SECOND = 1_000

/** A backlog of 1,000 keys, in order for each: no message is begun before the one before it is recorded as settled. */
export const orderedDrain: Scenario = {
  name: 'ordered-drain',
  measure: (bench) => measureDrains(bench, bench.scale.backlog, KEYS, 'ordered_drain'),
}

/** As many keys as messages. */
export const orderedDrainManyKeys: Scenario = {
  name: 'ordered-drain-million-keys',
  measure: (bench) => measureDrains(bench, bench.scale.keys, bench.scale.keys, 'ordered_drain_million_keys'),
}

function measureDrains(bench: Bench, messages: number, keys: number, name: string): Promise<Figures> {
  return bench.atSite(async (site) => {
    bench.progress(`publishing ${messages} messages`)
    const publisher = site.processes.actor('publisher')
    await publisher.open({ url: site.url })
    await publisher.bulk({ messages, keys })
    await publisher.close()
    const alone = await bench.times(async (run) => ({
      [`${name}_per_s`]: await drainWith(site, 1, `alone-${run}`, messages),
    }))
    const both = await bench.times(async (run) => ({
      [`${name}_2_processes_per_s`]: await drainWith(site, 2, `both-${run}`, messages),
    }))
    return { ...summarise(alone), ...summarise(both) }
  })
}

/** Works the backlog off under a new subscription, shared by so many processes. */
async function drainWith({ processes, url }: Site, count: number, subscription: string, messages: number) {
  const consumers = Array.from({ length: count }, () => processes.actor('consumer'))
  for (const consumer of consumers) await consumer.open({ url })
  const task = { subscriptions: [subscription], messages, concurrency: CONCURRENCY, ordered: true }
  const startedAtMs = performance.now()
  await Promise.all(consumers.map((consumer) => consumer.subscribe(task)))
  for (;;) {
    const handled = await Promise.all(consumers.map((consumer) => consumer.handled()))
    if (handled.reduce((sum, part) => sum + part, 0) >= messages) break
    await setTimeout(LOOK_MS)
  }
  const seconds = (performance.now() - startedAtMs) / MS_PER_SECOND
  await Promise.all(consumers.map((consumer) => consumer.close()))
  return messages / seconds
}
