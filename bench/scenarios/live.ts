import type { Scenario, Site } from '../bench.ts'
import type { RemoteActor } from '../processes.ts'
import { percentile } from '../statistics.ts'

export const SUBSCRIPTIONS: readonly string[] = Array.from({ length: 12 }, (_, number) => `subscription-${number}`)
const LIVE_PER_SECOND = 1_000
/** Left out of the figures: programs that have just started are still being compiled. */
const WARM_UP_SHARE = 0.2
const MS_PER_SECOND = 1_000

/** One process publishes, another delivers everything to twelve subscriptions meanwhile. */
export const fanOut: Scenario = {
  name: 'fanout12',
  measure(bench) {
    const messages = bench.scale.fanOutMessages
    return bench.repeat(async (site) => {
      const { publisher, consumer } = await openBoth(site)
      const perSecond = await deliverWhilePublishing(publisher, consumer, SUBSCRIPTIONS, messages)
      return { fanout12_deliveries_per_s: perSecond, rss_fanout12_mb: consumer.peakMb() }
    })
  },
}

/** Returns deliveries per second, to all of the subscriptions. */
export async function deliverWhilePublishing(
  publisher: RemoteActor<'publisher'>,
  consumer: RemoteActor<'consumer'>,
  subscriptions: readonly string[],
  messages: number,
): Promise<number> {
  await consumer.subscribe({ subscriptions, messages })
  const startedAtMs = performance.now()
  await Promise.all([publisher.bulk({ messages }), consumer.finish()])
  const seconds = (performance.now() - startedAtMs) / MS_PER_SECOND
  return (messages * subscriptions.length) / seconds
}

/** From the call of `publish` in one process to the handler in another, on a fixed schedule. */
export const live: Scenario = {
  name: 'live',
  measure(bench) {
    const seconds = bench.scale.liveSeconds * (1 + WARM_UP_SHARE)
    const warmUp = Math.round(bench.scale.liveSeconds * WARM_UP_SHARE * LIVE_PER_SECOND)
    return bench.repeat(async (site) => {
      const { publisher, consumer } = await openBoth(site)
      const messages = Math.round(LIVE_PER_SECOND * seconds)
      await consumer.subscribe({ subscriptions: ['live'], messages, timed: true })
      await Promise.all([publisher.paced({ perSecond: LIVE_PER_SECOND, seconds }), consumer.finish()])
      const latenciesMs = (await consumer.latencies()).slice(warmUp)
      return {
        live_ms_p50: percentile(latenciesMs, 0.5),
        live_ms_p99: percentile(latenciesMs, 0.99),
        rss_live_mb: consumer.peakMb(),
      }
    })
  },
}

export async function openBoth({ processes, url }: Site) {
  const publisher = processes.actor('publisher')
  const consumer = processes.actor('consumer')
  await publisher.open({ url })
  await consumer.open({ url })
  return { publisher, consumer }
}
