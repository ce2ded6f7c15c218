import { setTimeout } from 'node:timers/promises'
import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, summarise } from '../statistics.ts'

const KEYS = 1_000
const FEW_KEYS = 100
const CONCURRENCY = 1_000
const CONCURRENCY_BY_DEFAULT = 10
const LOOK_MS = 5
const MS_PER_SECOND = 1_000

/** A backlog of 1,000 keys, in order for each: no message is begun before the one before it is recorded as settled. */
export const orderedDrain: Scenario = {
  name: 'ordered-drain',
  measure: (bench) => measureDrains(bench, bench.scale.backlog, KEYS, 'ordered_drain'),
}

/** A backlog of few keys, and the concurrency of whoever says nothing of it: each key waits for the store time and again. */
export const orderedDrainFewKeys: Scenario = {
  name: 'ordered-drain-100-keys',
  measure(bench) {
    const messages = bench.scale.fewKeysBacklog
    return bench.atSite(async (site) => {
      await prepareKeys(bench, site, messages, FEW_KEYS)
      const runs = await bench.times(async (run) => ({
        ordered_drain_100_keys_per_s: await drainWith(site, 1, `few-${run}`, messages, CONCURRENCY_BY_DEFAULT),
      }))
      return summarise(runs)
    })
  },
}

/** As many keys as messages. */
export const orderedDrainManyKeys: Scenario = {
  name: 'ordered-drain-million-keys',
  measure: (bench) => measureDrains(bench, bench.scale.keys, bench.scale.keys, 'ordered_drain_million_keys'),
}

function measureDrains(bench: Bench, messages: number, keys: number, name: string): Promise<Figures> {
  return bench.atSite(async (site) => {
    await prepareKeys(bench, site, messages, keys)
    const alone = await bench.times(async (run) => ({
      [`${name}_per_s`]: await drainWith(site, 1, `alone-${run}`, messages),
    }))
    const both = await bench.times(async (run) => ({
      [`${name}_2_processes_per_s`]: await drainWith(site, 2, `both-${run}`, messages),
    }))
    return { ...summarise(alone), ...summarise(both) }
  })
}

async function prepareKeys(bench: Bench, site: Site, messages: number, keys: number): Promise<void> {
  bench.progress(`publishing ${messages} messages`)
  const publisher = site.processes.actor('publisher')
  await publisher.open({ url: site.url })
  await publisher.bulk({ messages, keys })
  await publisher.close()
}

/** Works the backlog off under a new subscription, shared by so many processes. */
async function drainWith(
  { processes, url }: Site,
  count: number,
  subscription: string,
  messages: number,
  concurrency = CONCURRENCY,
) {
  const consumers = Array.from({ length: count }, () => processes.actor('consumer'))
  for (const consumer of consumers) await consumer.open({ url })
  const task = { subscriptions: [subscription], messages, concurrency, ordered: true }
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
