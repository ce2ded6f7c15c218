import type { ConfiguredLimit, ConsumerSettings, Handlers } from '../../src/consumer/consumer.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { FakeSource } from './fake-source.ts'
import { defaultSettings, START_MS, startRigOn } from './harness.ts'
import { LimitKeeper } from './limit-keeper.ts'

export const byTenant = (event: StoredEvent) => event.subject as string

export function rate(limit: number, changes: Partial<ConfiguredLimit> = {}): ConfiguredLimit {
  return { kind: 'rate', name: 'rate', limit, perMs: 1_000, burst: 1, graceMs: 20, ...changes } as ConfiguredLimit
}

export function inFlight(limit: number, changes: Partial<ConfiguredLimit> = {}): ConfiguredLimit {
  return { kind: 'inFlight', name: 'in-flight', limit, ...changes } as ConfiguredLimit
}

export async function startLimited(
  limits: readonly ConfiguredLimit[],
  handlers: Handlers,
  changes: Partial<ConsumerSettings> = {},
  shared?: { clock: VirtualClock; keeper: LimitKeeper },
) {
  const clock = shared?.clock ?? new VirtualClock(START_MS)
  const keeper = shared?.keeper ?? new LimitKeeper(clock, limits)
  const source = new FakeSource()
  keeper.serve(source)
  const rig = await startRigOn(source, handlers, clock, { ...defaultSettings, limits, ...changes })
  return { ...rig, keeper }
}

/** A handler that ends at once, and what it was called with, when. */
export function recorder(clock: VirtualClock) {
  const starts: { readonly atMs: number; readonly offset: unknown; readonly tenant: string | undefined }[] = []
  const handle = ({ data, subject }: StoredEvent) => {
    starts.push({ atMs: clock.now(), offset: data, tenant: subject })
  }
  return { starts, handle }
}

export function sharedBy(clock: VirtualClock, limit: ConfiguredLimit = rate(100)) {
  return { clock, keeper: new LimitKeeper(clock, [limit]) }
}
