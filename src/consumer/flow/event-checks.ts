/**
 * The checks of events, before permission to start them is asked for. A check may take its time (a schema may validate
 * asynchronously), and a permission is for the moment: between the two of them nothing is to be waited for.
 *
 * A message is under check, then passed, refused, or overdue, when its check outruns the timeout of handlers; or it is
 * taken out, and what its check brings has no effect. As many are under check at once as handlers could be given. The
 * outcome is kept until the handler's side asks for it.
 */
import type { StoredEvent } from '../../engine.ts'
import type { Clock, Timer } from '../../environment/index.ts'
import type { Item } from '../fetching/supply.ts'
import type { CheckEvent, ConsumerSettings, Handlers } from '../settings.ts'

export interface CheckResults {
  refused(item: Item, error: unknown): void
  overdue(item: Item): void
  /** After one of these, if it was later than within `begin`: another message can be checked. */
  onRoom(): void
}

export interface CheckLimits {
  /** Messages under check at once. */
  readonly atOnce: number
  readonly timeoutMs: number
}

export class EventChecks {
  readonly #checkEvent: CheckEvent
  readonly #clock: Clock
  readonly #limits: CheckLimits
  readonly #results: CheckResults
  /** Of the messages under check. */
  readonly #timers = new Map<Item, Timer>()
  /** What passed, by what is stored. */
  readonly #passed = new WeakMap<StoredEvent, StoredEvent>()

  constructor(checkEvent: CheckEvent, clock: Clock, limits: CheckLimits, results: CheckResults) {
    this.#checkEvent = checkEvent
    this.#clock = clock
    this.#limits = limits
    this.#results = results
  }

  /** Messages under check. */
  get count(): number {
    return this.#timers.size
  }

  get full(): boolean {
    return this.count >= this.#limits.atOnce
  }

  /** Stands in for the check where handlers are called: gives the outcome of the one that was made, the first time. */
  readonly outcome: CheckEvent = (event) => {
    const passed = this.#passed.get(event)
    this.#passed.delete(event)
    return passed ?? this.#checkEvent(event)
  }

  /** Says whether the event has passed. When its check is still to end, `onPassed` is called once it has. */
  begin(item: Item, onPassed: () => void): boolean {
    const { event } = item.ledger.message(item.index)
    if (this.#passed.has(event)) return true
    try {
      const checked = this.#checkEvent(event)
      if (checked instanceof Promise) return this.#await(item, event, checked, onPassed)
      this.#passed.set(event, checked)
      return true
    } catch (error) {
      this.#results.refused(item, error)
      return false
    }
  }

  /** Takes out what is under check. */
  takeWhere(test: (item: Item) => boolean): readonly Item[] {
    const items = [...this.#timers.keys()].filter(test)
    for (const item of items) this.#end(item)
    return items
  }

  #await(item: Item, event: StoredEvent, checking: Promise<StoredEvent>, onPassed: () => void): false {
    const timer = this.#clock.setTimer(this.#limits.timeoutMs, () => {
      if (!this.#end(item)) return
      this.#results.overdue(item)
      this.#results.onRoom()
    })
    this.#timers.set(item, timer)
    const passed = (checked: StoredEvent): void => {
      if (!this.#end(item)) return
      this.#passed.set(event, checked)
      onPassed()
    }
    const refused = (error: unknown): void => {
      if (!this.#end(item)) return
      this.#results.refused(item, error)
      this.#results.onRoom()
    }
    checking.then(passed, refused)
    return false
  }

  /** Says whether it was under check. */
  #end(item: Item): boolean {
    this.#timers.get(item)?.cancel()
    return this.#timers.delete(item)
  }
}

/** Undefined where handlers' calls need no permission: events are checked there then, if at all. */
export function checksOf(
  { checkEvent }: Handlers,
  { limits, concurrency, batch, timeoutMs }: ConsumerSettings,
  clock: Clock,
  results: CheckResults,
): EventChecks | undefined {
  if (limits.length === 0 || checkEvent === undefined) return undefined
  const atOnce = concurrency * (batch?.size ?? 1)
  return new EventChecks(checkEvent, clock, { atOnce, timeoutMs }, results)
}
