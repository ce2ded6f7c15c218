/**
 * The supply that a subscription's settings ask for, put together: the grants as they come, or key lanes when it is
 * ordered; behind a flow when it has limits.
 */
import type { Source } from '../../engine.ts'
import type { Environment } from '../../environment/index.ts'
import type { EventChecks } from '../flow/event-checks.ts'
import { Flow } from '../flow/flow.ts'
import { KeyLanes } from '../order/key-lanes.ts'
import { Overflow } from '../order/overflow.ts'
import type { Outage } from '../outage.ts'
import type { ConsumerSettings } from '../settings.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'
import { GrantBuffer } from './buffer.ts'
import type { Pace } from './prefetch.ts'
import type { Intake, Item, Witness } from './supply.ts'

export interface SupplyHost {
  readonly source: Source
  readonly settings: ConsumerSettings
  readonly environment: Environment
  /** Of asking the engine for admission. */
  readonly outage: Outage
  pace(): Pace
  /** The checks of events that are to be made before permission is asked for. */
  readonly checks: EventChecks | undefined
  /** Handler calls under way. */
  running(): number
  /** Pulls begun so far. */
  pulls(): number
  /** Sets a message aside. */
  park(item: Item, until: number | 'chain' | 'freed'): void
  /** Gives a message back with nothing counted. */
  release(item: Item): void
  /** Settles what a ledger has to say beside of what became of its messages. */
  tell(ledger: GrantLedger): void
  /** A message cannot be told which limits it counts in. */
  reject(item: Item, error: unknown): void
  /** Something may be taken that could not be before. */
  onStartable(): void
}

export interface SupplyLine {
  readonly intake: Intake
  /** What has to hear of the ends of messages; undefined: nothing has. */
  readonly witness: Witness | undefined
  /** Messages have come, and handlers have taken theirs. */
  arrived(): void
  stop(): void
}

export function supplyLine(host: SupplyHost): SupplyLine {
  const { ordered, limits } = host.settings
  const lanes = ordered === false ? undefined : new KeyLanes(host, host.pulls)
  const base = lanes ?? new GrantBuffer()
  const flow = limits.length === 0 ? undefined : new Flow(base, lanes, host)
  const overflow = lanes && overflowOf(lanes, flow, host)
  return {
    intake: flow ?? base,
    witness: flow ?? lanes,
    arrived: () => overflow?.watch(),
    stop() {
      overflow?.stop()
      flow?.stop()
    },
  }
}

function overflowOf(lanes: KeyLanes, flow: Flow | undefined, host: SupplyHost): Overflow {
  const { settings, environment } = host
  // A few tenants may keep all handlers busy, and others starve for that.
  const hungry = () => flow?.looksFurther === true || host.running() < settings.concurrency
  const starving = () => hungry() && !lanes.held && (flow === undefined ? lanes.count : flow.ahead) === 0
  return new Overflow(lanes, environment.clock, settings.concurrency, starving)
}
