import assert from 'node:assert/strict'
import { type BreakerOptions, readBreaker } from '../../src/consumer/breaker/settings.ts'
import type { ConsumerSettings, Handlers } from '../../src/consumer/consumer.ts'
import { settleDown } from './fake-source.ts'
import { type HeldHandler, type Rig, startRig } from './harness.ts'

export const refused = () => Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })

/** With the harness's random numbers, the first probe comes 750 ms after opening. */
export const PROBE_MS = 750

export function startGuarded(
  handlers: Handlers,
  options: BreakerOptions = {},
  changes: Partial<ConsumerSettings> = {},
): Promise<Rig> {
  const breaker = readBreaker(options)
  assert.ok(breaker !== undefined)
  return startRig(handlers, { breaker, ...changes })
}

export async function advance({ clock }: Rig, durationMs: number): Promise<void> {
  await clock.advance(durationMs)
  await settleDown()
}

/** Fails the messages that are running, one after the other. */
export async function refuse(handler: HeldHandler, ...failing: readonly number[]): Promise<void> {
  for (const offset of failing) latest(handler, offset).reject(refused())
  await settleDown()
}

export async function succeed(handler: HeldHandler, ...working: readonly number[]): Promise<void> {
  for (const offset of working) latest(handler, offset).resolve()
  await settleDown()
}

function latest({ calls }: HeldHandler, offset: number) {
  return calls.findLast(({ event }) => event.data === offset) ?? assert.fail(`Offset ${offset} was not handed over.`)
}
