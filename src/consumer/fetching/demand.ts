import type { Runner } from '../delivery/runner.ts'
import type { Held } from '../delivery/work-of.ts'
import type { ConsumerSettings } from '../settings.ts'
import type { Settler } from '../settlement/settler.ts'
import type { Pace } from './prefetch.ts'
import type { Demand } from './puller.ts'
import type { SupplyLine } from './supply-line.ts'

export interface DemandParts {
  readonly settings: ConsumerSettings
  readonly line: SupplyLine
  readonly runner: Runner<Held>
  readonly settler: Settler
  /** Tries single messages while it is open. */
  readonly breaker: { readonly tried: number } | undefined
}

export function paceOf({ concurrency, batch }: ConsumerSettings, runner: Runner<Held>): Pace {
  return { averageMs: runner.durations.averageMs, concurrency, callSize: batch?.size ?? 1 }
}

/** What the puller goes by, told by the other parts of the consumer. */
export function demandOf(parts: DemandParts): Demand {
  const { settings, line, runner, settler, breaker } = parts
  const { intake } = line
  // Asked for every message that is started.
  const plain = line.witness === undefined && breaker === undefined
  return {
    pace: () => paceOf(settings, runner),
    running: () => runner.running,
    buffered: plain ? () => intake.count : () => buffered(parts),
    blocked: () => intake.blocked,
    full: () => intake.full || intake.leaving,
    unrecorded: () => settler.waiting,
  }
}

// While all handlers are busy, there is nothing to look for ahead of what waits.
function buffered({ settings, line, runner, breaker }: DemandParts): number {
  const { ahead, blocked, looksFurther } = line.intake
  const looks = looksFurther || runner.running < settings.concurrency
  const messages = looks ? ahead : ahead + blocked
  return breaker === undefined ? messages : Math.max(0, messages - breaker.tried)
}
