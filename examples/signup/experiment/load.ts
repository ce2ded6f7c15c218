import { setTimeout as sleep } from 'node:timers/promises'
import type { Outcome } from './client.ts'

/** Makes request number `number`, which should have left at `intendedAt` (performance.now()). */
type Send = (number: number, intendedAt: number) => Promise<Outcome>

/** `concurrency` clients that each wait for an answer before they send the next request. */
export async function closedLoad(requests: number, concurrency: number, send: Send): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  let next = 0
  const client = async () => {
    while (next < requests) outcomes.push(await send(next++, performance.now()))
  }
  await Promise.all(Array.from({ length: concurrency }, client))
  return outcomes
}

/**
 * Requests at a fixed rate, whether or not the earlier ones were answered, as users come. A request that leaves late,
 * because this process or the machine was busy, is charged with the delay.
 */
export async function openLoad(perSecond: number, seconds: number, send: Send): Promise<Outcome[]> {
  const outcomes: Promise<Outcome>[] = []
  const startedAt = performance.now()
  for (let number = 0; number < perSecond * seconds; number++) {
    const intendedAt = startedAt + (number * 1000) / perSecond
    const early = intendedAt - performance.now()
    if (early > 0) await sleep(Math.ceil(early))
    outcomes.push(send(number, intendedAt))
  }
  return Promise.all(outcomes)
}
