import { setTimeout } from 'node:timers/promises'
import type { Scenario } from '../bench.ts'

const PER_SECOND = 500
const WINDOW_US = 1_000_000
const LOOK_MS = 50

/** A burst, worked off by two processes under one rate limit; what counts is what the downstream sees at most. */
export const rateLimit: Scenario = {
  name: 'rate-limit',
  measure(bench) {
    const messages = bench.scale.burst
    return bench.atSite(async ({ processes, url }) => {
      const publisher = processes.actor('publisher')
      await publisher.open({ url })
      await publisher.bulk({ messages })
      const consumers = [processes.actor('consumer'), processes.actor('consumer')]
      for (const consumer of consumers) await consumer.open({ url })
      const task = { subscriptions: ['limited'], messages, clocked: true, perSecond: PER_SECOND }
      await Promise.all(consumers.map((consumer) => consumer.subscribe(task)))
      let handled = 0
      while (handled < messages) {
        await setTimeout(LOOK_MS)
        const parts = await Promise.all(consumers.map((consumer) => consumer.handled()))
        handled = parts.reduce((sum, part) => sum + part, 0)
      }
      const calls = await Promise.all(consumers.map((consumer) => consumer.calls()))
      return ratesOf(calls.flat().toSorted((one, other) => one - other))
    })
  },
}

function ratesOf(callsUs: readonly number[]) {
  let most = 0
  let first = 0
  for (const [last, atUs] of callsUs.entries()) {
    while (atUs - callsUs[first]! >= WINDOW_US) first++
    most = Math.max(most, last - first + 1)
  }
  const seconds = (callsUs.at(-1)! - callsUs[0]!) / WINDOW_US
  return { rate_limited_max_per_s: most, rate_limited_per_s: (callsUs.length - 1) / seconds }
}
