import type { Scenario, Site } from '../bench.ts'
import { percentile } from '../statistics.ts'

const CONNECTIONS = 4
const PER_SECOND = 100
const MESSAGES_EACH = 10
const MS_PER_SECOND = 1_000
/** Left out of the figures: programs that have just started are still being compiled. */
const WARM_UP_SHARE = 0.2

/**
 * Publishing in the transactions of another process, on connections of its own, with a handler in a process that has
 * nothing to do with it. The time is that from the call of `publish` to the handler, so that the COMMIT is in it.
 */
export const outbox: Scenario = {
  name: 'outbox',
  async measure(bench) {
    if (bench.engine !== 'postgres') return {}
    const { liveSeconds, outboxTransactions } = bench.scale
    return bench.repeat(async (site) => {
      const { orders, consumer } = await openBoth(site)
      const messages = Math.round(PER_SECOND * liveSeconds * (1 + WARM_UP_SHARE))
      await consumer.subscribe({ subscriptions: ['outbox'], messages, timed: true })
      await Promise.all([orders.paced({ perSecond: PER_SECOND, seconds: messages / PER_SECOND }), consumer.finish()])
      const latenciesMs = (await consumer.latencies()).slice(Math.round(PER_SECOND * liveSeconds * WARM_UP_SHARE))
      const bulk = outboxTransactions * MESSAGES_EACH
      await consumer.subscribe({ subscriptions: ['outbox'], messages: bulk })
      const startedAtMs = performance.now()
      await Promise.all([orders.bulk({ transactions: outboxTransactions, messages: MESSAGES_EACH }), consumer.finish()])
      return {
        outbox_to_handler_ms_p50: percentile(latenciesMs, 0.5),
        outbox_to_handler_ms_p99: percentile(latenciesMs, 0.99),
        outbox_per_s: (bulk * MS_PER_SECOND) / (performance.now() - startedAtMs),
      }
    })
  },
}

async function openBoth({ processes, url }: Site) {
  const orders = processes.actor('orders')
  const consumer = processes.actor('consumer')
  await orders.open({ url, clients: CONNECTIONS })
  await consumer.open({ url })
  return { orders, consumer }
}
