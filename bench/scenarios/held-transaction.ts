import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, summarise } from '../statistics.ts'
import { openConsumer, prepare } from './drain.ts'
import { deliverWhilePublishing, openBoth, SUBSCRIPTIONS } from './live.ts'

/**
 * What becomes of draining and of fan-out while another session of the server holds a transaction open, under which a
 * million messages were delivered to the same subscriptions before: nothing that was deleted since can be cleaned up.
 */
export const heldTransaction: Scenario = {
  name: 'held-transaction',
  async measure(bench) {
    if (bench.engine !== 'postgres') return {}
    const drains = await underHeldTransaction(bench, ['drain'], async (site) => ({
      drain_held_transaction_per_s: await drainOnce(bench, site),
    }))
    const fanOuts = await underHeldTransaction(bench, SUBSCRIPTIONS, async (site) => ({
      fanout12_held_transaction_per_s: await deliver(site, SUBSCRIPTIONS, bench.scale.fanOutMessages),
    }))
    return { ...drains, ...fanOuts }
  },
}

function underHeldTransaction(
  bench: Bench,
  subscriptions: readonly string[],
  measure: (site: Site) => Promise<Figures>,
): Promise<Figures> {
  return bench.atSite(async (site) => {
    // The tables are made, and the subscriptions, before the transaction begins.
    await deliver(site, subscriptions, 1)
    const holder = site.processes.actor('holder')
    await holder.hold({ url: site.url })
    const messages = Math.ceil(bench.scale.churnMessages / subscriptions.length)
    bench.progress(`delivering ${messages} messages to each subscription beforehand`)
    await deliver(site, subscriptions, messages)
    const runs = await bench.times(() => measure(site))
    await holder.release()
    return summarise(runs)
  })
}

/** Publishes messages, and delivers them meanwhile. Returns deliveries per second. */
async function deliver(site: Site, subscriptions: readonly string[], messages: number): Promise<number> {
  const { publisher, consumer } = await openBoth(site)
  const perSecond = await deliverWhilePublishing(publisher, consumer, subscriptions, messages)
  await Promise.all([publisher.close(), consumer.close()])
  return perSecond
}

async function drainOnce(bench: Bench, site: Site): Promise<number> {
  const messages = bench.scale.backlog
  await prepare(bench, site, messages)
  const consumer = await openConsumer(site)
  const perSecond = await consumer.drain({ subscriptions: ['drain'], messages })
  await consumer.close()
  return perSecond
}
