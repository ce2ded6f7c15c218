/**
 * Runs handlers, so many at once. A *slot* is one place of that concurrency; a *lane* is the async loop that holds a
 * slot, runs one handler after another in it, and ends when there is nothing to start. `fill` opens lanes; it is
 * called whenever something may have become startable: messages came, a turn or a suspect ended, a slot was freed.
 *
 * Handlers that return no promise finish within the loop, without recursion and without a trip through the microtask
 * queue; a turn budget keeps them from holding up the event loop.
 *
 * A handler that has failed keeps its slot, and its deadline, until what it left running is over.
 *
 * A handler that outruns its timeout is abandoned: its slot leaves the list of running ones at once, its delivery is
 * settled as failed, and its lane, if the handler ever ends, ends without effect. So a handler that never ends costs
 * the memory of its own promise and nothing else. Timeouts and durations go by the monotonic clock: a wall clock that
 * is set back or forward neither spares a handler nor ends it early.
 */
import type { Clock, Timer } from '../../environment/index.ts'
import { DurationAverage } from '../fetching/prefetch.ts'
import type { Abortable } from './abortable.ts'
import type { LeaseGate } from './lease-gate.ts'
import { RunningList, Slot } from './running-list.ts'
import { TurnBudget } from './turn-budget.ts'

/** What the runner runs: single deliveries or batches. */
export interface Work<Run extends Abortable> {
  /** Takes what is to be started next beside `running` others; undefined when there is nothing now. */
  next(nowMs: number, running: number): Run | undefined
  invoke(run: Run): unknown
  succeeded(run: Run, nowMs: number): void
  failed(run: Run, thrown: unknown, nowMs: number): void
  /** What the handler, which has failed, left running: `failed` is called once that is over. Undefined: nothing. */
  leftBehind?(run: Run, thrown: unknown): Promise<void> | undefined
  timedOut(run: Run, nowMs: number): void
  /** A handler that had been abandoned has ended after all. */
  endedLate(run: Run, durationMs: number): void
  /** Something was started: there is more room for what can be fetched. */
  started(): void
  /** Nothing will be started any more. */
  stop?(): void
}

export class Runner<Run extends Abortable> {
  readonly durations = new DurationAverage()
  /** When a handler last ended, by `Clock.elapsedMs`. */
  lastEndedAtMs = Number.NEGATIVE_INFINITY
  readonly #work: Work<Run>
  readonly #gate: LeaseGate
  readonly #clock: Clock
  readonly #concurrency: number
  readonly #timeoutMs: number
  readonly #running = new RunningList<Run>()
  readonly #budget: TurnBudget
  #timer: Timer | undefined = undefined
  #filling = false
  #onIdle: (() => void) | undefined = undefined

  constructor(work: Work<Run>, gate: LeaseGate, clock: Clock, limits: { concurrency: number; timeoutMs: number }) {
    this.#work = work
    this.#gate = gate
    this.#clock = clock
    this.#concurrency = limits.concurrency
    this.#timeoutMs = limits.timeoutMs
    this.#budget = new TurnBudget(() => this.fill())
  }

  get running(): number {
    return this.#running.count
  }

  runs(): readonly Run[] {
    return this.#running.slots().flatMap((slot) => slot.run ?? [])
  }

  /** Starts what can be started. */
  fill(): void {
    // A handler that runs synchronously can lead back here.
    if (this.#filling) return
    this.#filling = true
    try {
      while (this.#openLane());
    } finally {
      this.#filling = false
    }
  }

  /** Starts nothing before `change` is complete: what it tells to stop is to know that before others take its place. */
  fillAfter(change: () => void): void {
    const wasFilling = this.#filling
    this.#filling = true
    try {
      change()
    } finally {
      this.#filling = wasFilling
    }
    this.fill()
  }

  /** The time of this run begins now. */
  restart(run: Abortable): void {
    const slot = this.#running.slots().find((one) => one.run === run)
    if (slot === undefined) return
    this.#running.remove(slot)
    this.#time(slot, this.#clock.elapsedMs())
  }

  /** Resolves once nothing runs. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#running.count === 0) resolve()
      else this.#onIdle = resolve
    })
  }

  /** Sets no timer any more, and minds no more what still runs: it ends without effect. */
  stop(): void {
    for (const slot of this.#running.slots()) this.#abandon(slot)
    this.#timer?.cancel()
    this.#timer = undefined
    this.#gate.stop()
    this.#work.stop?.()
  }

  #openLane(): boolean {
    if (this.#running.count >= this.#concurrency) return false
    const slot = new Slot<Run>()
    this.#begin(slot, this.#clock.now(), this.#clock.elapsedMs())
    if (slot.run === undefined) return false
    void this.#lane(slot)
    return true
  }

  async #lane(slot: Slot<Run>): Promise<void> {
    while (slot.run !== undefined) {
      let failed = false
      let thrown: unknown
      try {
        const result = this.#work.invoke(slot.run)
        if (mayBeThenable(result)) await result
      } catch (error) {
        failed = true
        thrown = error
        const left = slot.abandoned ? undefined : this.#work.leftBehind?.(slot.run, thrown)
        if (left !== undefined) await left
      }
      if (slot.abandoned) return this.#endLate(slot, slot.run)
      const nowMs = this.#clock.now()
      const elapsedMs = this.#clock.elapsedMs()
      this.#end(slot, elapsedMs)
      if (failed) this.#work.failed(slot.run, thrown, nowMs)
      else this.#work.succeeded(slot.run, nowMs)
      this.#begin(slot, nowMs, elapsedMs)
    }
    if (this.#running.count === 0) this.#onIdle?.()
  }

  #begin(slot: Slot<Run>, nowMs: number, elapsedMs: number): void {
    slot.run = this.#mayBegin(nowMs, elapsedMs) ? this.#work.next(nowMs, this.#running.count) : undefined
    if (slot.run === undefined) return
    this.#time(slot, elapsedMs)
    if (this.#timer === undefined) this.#setTimer(this.#timeoutMs)
    this.#work.started()
  }

  #time(slot: Slot<Run>, elapsedMs: number): void {
    slot.startedAtMs = elapsedMs
    slot.deadlineMs = elapsedMs + this.#timeoutMs
    this.#running.append(slot)
  }

  // Settling the delivery before may have led to `fill`, which has used the freed place.
  #mayBegin(nowMs: number, elapsedMs: number): boolean {
    if (this.#running.count >= this.#concurrency || !this.#gate.isOpen(nowMs, () => this.fill())) return false
    return this.#budget.spend(elapsedMs)
  }

  #end(slot: Slot<Run>, elapsedMs: number): void {
    this.#running.remove(slot)
    this.durations.observe(elapsedMs - slot.startedAtMs)
    this.lastEndedAtMs = elapsedMs
  }

  #endLate(slot: Slot<Run>, run: Run): void {
    this.#work.endedLate(run, Math.round(this.#clock.elapsedMs() - slot.startedAtMs))
  }

  #setTimer(delayMs: number): void {
    this.#timer = this.#clock.setTimer(delayMs, () => this.#expire())
  }

  // The timer is left to fire when its slot has long been reused: moving it with each delivery would cost more.
  #expire(): void {
    this.#timer = undefined
    const nowMs = this.#clock.now()
    const elapsedMs = this.#clock.elapsedMs()
    const running = this.#running
    for (let slot = running.first; slot !== undefined && slot.deadlineMs <= elapsedMs; slot = running.first) {
      this.#abandon(slot)
      this.durations.observe(elapsedMs - slot.startedAtMs)
      if (slot.run !== undefined) this.#work.timedOut(slot.run, nowMs)
    }
    const { first } = running
    if (first !== undefined && this.#timer === undefined) this.#setTimer(first.deadlineMs - elapsedMs)
    this.fill()
  }

  #abandon(slot: Slot<Run>): void {
    slot.abandoned = true
    this.#running.remove(slot)
    if (this.#running.count === 0) this.#onIdle?.()
  }
}

function mayBeThenable(result: unknown): boolean {
  return result !== null && (typeof result === 'object' || typeof result === 'function')
}
