import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, median, summarise } from '../statistics.ts'

const SLOW_HANDLER_MS = 20
const SLOW_CONCURRENCY = 100
const MS_PER_SECOND = 1_000

/** A handler that does nothing, and every message settled by itself. */
export const drain: Scenario = {
  name: 'drain',
  measure(bench) {
    const messages = bench.scale.backlog
    return bench.atSite(async (site) => {
      await prepare(bench, site, messages)
      return drainBacklog(bench, site, messages, 'drain')
    })
  },
}

export const drainDeep: Scenario = {
  name: 'drain-deep',
  async measure(bench) {
    const messages = bench.scale.deepBacklog
    return bench.atSite(async (site) => {
      await prepare(bench, site, messages)
      const figures = await drainBacklog(bench, site, messages, 'drain_deep')
      bench.progress('with a small heap')
      return { ...figures, ...(await drainWithSmallHeap(site, messages)), drain_deep_messages: messages }
    })
  },
}

/** Many small backlogs of new messages, one after the other, because a single one is gone too soon to be measured. */
export const drain10k: Scenario = {
  name: 'drain-10k',
  measure(bench) {
    const { smallBacklog: messages, smallBacklogRuns } = bench.scale
    return bench.repeat(async (site) => {
      const publisher = await openPublisher(site)
      const consumer = await openConsumer(site)
      const rates: number[] = []
      while (rates.length < smallBacklogRuns) {
        await publisher.bulk({ messages })
        rates.push(await consumer.drain({ subscriptions: ['drain'], messages }))
      }
      return { drain_10k_per_s: median(rates) }
    })
  },
}

/** Handlers that wait for something else: the ideal is as many as can wait at once. */
export const drainSlowHandlers: Scenario = {
  name: 'drain-20ms-handlers',
  measure(bench) {
    const messages = bench.scale.slowMessages
    const idealPerSecond = (SLOW_CONCURRENCY * MS_PER_SECOND) / SLOW_HANDLER_MS
    return bench.repeat(async (site) => {
      await prepare(bench, site, messages)
      const consumer = await openConsumer(site)
      const handling = { concurrency: SLOW_CONCURRENCY, handlerMs: SLOW_HANDLER_MS }
      const perSecond = await consumer.drain({ subscriptions: ['slow'], messages, ...handling })
      return { drain_20ms_handlers_per_s: perSecond, drain_20ms_handlers_ratio: perSecond / idealPerSecond }
    })
  },
}

/** Works off one backlog several times, each under a subscription of its own, in a process of its own. */
async function drainBacklog(bench: Bench, site: Site, messages: number, name: string): Promise<Figures> {
  const runs = await bench.times(async (run) => {
    const consumer = await openConsumer(site)
    const perSecond = await consumer.drain({ subscriptions: [`drain-${run}`], messages })
    await consumer.close()
    return { [`${name}_per_s`]: perSecond, [`rss_${name}_mb`]: consumer.peakMb() }
  })
  return summarise(runs)
}

/**
 * On a large machine, V8 gives the garbage of a busy process a hundred megabytes and more before it collects it. This
 * is what the same work takes where the heap is as small as in a container of 512 MB.
 */
async function drainWithSmallHeap(site: Site, messages: number): Promise<Figures> {
  const consumer = await openConsumer(site, ['--max-heap-size=256'])
  await consumer.drain({ subscriptions: ['small-heap'], messages })
  await consumer.close()
  return { rss_drain_deep_small_heap_mb: consumer.peakMb() }
}

export async function prepare(bench: Bench, site: Site, messages: number): Promise<void> {
  bench.progress(`publishing ${messages} messages`)
  const publisher = await openPublisher(site)
  await publisher.bulk({ messages })
  await publisher.close()
}

async function openPublisher({ processes, url }: Site) {
  const publisher = processes.actor('publisher')
  await publisher.open({ url })
  return publisher
}

export async function openConsumer({ processes, url }: Site, nodeOptions: readonly string[] = []) {
  const consumer = processes.actor('consumer', nodeOptions)
  await consumer.open({ url })
  return consumer
}
