import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, percentile } from '../statistics.ts'

const WARM_UP_SHARE = 0.1
const LOOP_DELAY_PER_SECOND = 2_000

/** One message after the other, each awaited: what a request handler waits for. */
export const publishOne: Scenario = {
  name: 'publish-one',
  measure(bench: Bench) {
    const messages = bench.scale.oneByOneMessages
    return bench.repeat(async (site) => {
      const publisher = await openPublisher(site, messages)
      const durationsMs = await publisher.oneByOne({ messages })
      return {
        publish_one_ms_p50: percentile(durationsMs, 0.5),
        publish_one_ms_p99: percentile(durationsMs, 0.99),
      }
    })
  },
}

export const publishInFlight100: Scenario = {
  name: 'publish-inflight-100',
  measure: (bench) => measureInFlight(bench, 100, 'publish_inflight_100_per_s'),
}

export const publishInFlight: Scenario = {
  name: 'publish-inflight',
  measure: (bench) => measureInFlight(bench, 1_000, 'publish_inflight_per_s'),
}

export const publishBulk: Scenario = {
  name: 'publish-bulk',
  measure(bench: Bench) {
    const messages = bench.scale.bulkMessages
    return bench.repeat(async (site) => {
      const publisher = await openPublisher(site, messages)
      const perSecond = await publisher.bulk({ messages })
      return { publish_bulk_per_s: perSecond, rss_publish_bulk_mb: publisher.peakMb() }
    })
  },
}

/** How long the publisher's event loop is held up by publishing. */
export const publishLoopDelay: Scenario = {
  name: 'publish-loop-delay',
  measure(bench: Bench) {
    const seconds = bench.scale.loopSeconds
    return bench.repeat(async (site) => {
      const publisher = await openPublisher(site, LOOP_DELAY_PER_SECOND)
      return { publish_loop_delay_ms_p99: await publisher.paced({ perSecond: LOOP_DELAY_PER_SECOND, seconds }) }
    })
  },
}

function measureInFlight(bench: Bench, calls: number, figure: string): Promise<Figures> {
  const messages = bench.scale.inFlightMessages
  return bench.repeat(async (site) => {
    const publisher = await openPublisher(site, messages)
    return { [figure]: await publisher.inFlight({ messages, calls }) }
  })
}

async function openPublisher({ processes, url }: Site, messages: number) {
  const publisher = processes.actor('publisher')
  await publisher.open({ url, warmUp: Math.ceil(messages * WARM_UP_SHARE) })
  return publisher
}
