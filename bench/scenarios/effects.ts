import type { Scenario, Site } from '../bench.ts'

/** Handlers called at once, so that the results of many steps reach the disk together. */
const STEPS_CONCURRENCY = 100

/** A row in a table of the user's and the acknowledgement in one transaction, a message each. */
export const transactional: Scenario = {
  name: 'transactional',
  measure(bench) {
    // Only a database that the handlers can open has transactions to join.
    if (bench.engine === 'memory') return Promise.resolve({})
    const messages = bench.scale.transactionalMessages
    return bench.repeat(async (site) => {
      await publish(site, messages)
      const ledger = site.processes.actor('ledger')
      return { transactional_per_s: await ledger.drain({ url: site.url, messages }) }
    })
  },
}

/** A durable step in each handler. */
export const steps: Scenario = {
  name: 'steps',
  measure(bench) {
    const messages = bench.scale.steppedMessages
    return bench.repeat(async (site) => {
      await publish(site, messages)
      const consumer = site.processes.actor('consumer')
      await consumer.open({ url: site.url })
      const task = { subscriptions: ['steps'], messages, concurrency: STEPS_CONCURRENCY, step: true }
      return { steps_per_s: await consumer.drain(task) }
    })
  },
}

async function publish({ processes, url }: Site, messages: number): Promise<void> {
  const publisher = processes.actor('publisher')
  await publisher.open({ url })
  await publisher.bulk({ messages })
  await publisher.close()
}
