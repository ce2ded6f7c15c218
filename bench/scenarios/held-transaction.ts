import type { Bench, Scenario, Site } from '../bench.ts'
import { type Figures, median } from '../statistics.ts'
import { openConsumer, prepare } from './drain.ts'
import { deliverWhilePublishing, openBoth, SUBSCRIPTIONS } from './live.ts'

/**
 * What becomes of draining and of fan-out while another session of the server holds a transaction open, under which a
 * million messages were delivered to the same subscriptions before: nothing that was deleted since can be cleaned up. The
 * ratios are to the same without the transaction, history and all.
 */
export const heldTransaction: Scenario = {
  name: 'held-transaction',
  async measure(bench) {
    if (bench.engine !== 'postgres') return {}
    const drains = await compare(bench, 'drain', ['drain'], (site) => drainOnce(bench, site))
    const fanOuts = await compare(bench, 'fanout12', SUBSCRIPTIONS, (site) =>
      deliver(site, SUBSCRIPTIONS, bench.scale.fanOutMessages),
    )
    return { ...drains, ...fanOuts }
  },
}

type Measure = (site: Site) => Promise<number>

async function compare(
  bench: Bench,
  name: string,
  subscriptions: readonly string[],
  measure: Measure,
): Promise<Figures> {
  const free = await afterChurn(bench, subscriptions, measure, false)
  const held = await afterChurn(bench, subscriptions, measure, true)
  return { [`${name}_held_transaction_per_s`]: held, [`${name}_held_transaction_ratio`]: held / free }
}

function afterChurn(
  bench: Bench,
  subscriptions: readonly string[],
  measure: Measure,
  isHeld: boolean,
): Promise<number> {
  return bench.atSite(async (site) => {
    // The tables are made, and the subscriptions, before the transaction begins.
    await deliver(site, subscriptions, 1)
    const holder = isHeld ? site.processes.actor('holder') : undefined
    await holder?.hold({ url: site.url })
    const messages = Math.ceil(bench.scale.churnMessages / subscriptions.length)
    bench.progress(`delivering ${messages} messages to each subscription beforehand`)
    await deliver(site, subscriptions, messages)
    const runs = await bench.times(async () => ({ perSecond: await measure(site) }))
    await holder?.release()
    return median(runs.map(({ perSecond }) => perSecond!))
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
