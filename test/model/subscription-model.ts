import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'

/** A message's place in the log. Messages are known by their data, a number that is never used twice. */
export interface Position {
  readonly partition: number
  readonly offset: number
}

export interface HeldLease {
  readonly slot: number
  readonly grant: Grant
}

export interface Waiting {
  readonly kind: 'waiting'
  /** It lies at or beyond the cursor: a move of the cursor passes over it. */
  readonly fresh: boolean
  /** It waits outside of the log. */
  readonly setAside: boolean
  readonly notBeforeMs: number
  readonly attempt: number
  readonly crashes: number
}

export type State =
  | Waiting
  | { readonly kind: 'held'; readonly lease: HeldLease }
  | { readonly kind: 'done' | 'dead' | 'skipped' | 'cancelled' }

export const FRESH = {
  kind: 'waiting',
  fresh: true,
  setAside: false,
  notBeforeMs: 0,
  attempt: 1,
  crashes: 0,
} as const

/**
 * What one subscription owes: for each message, whether it must still come, from when on, and as which attempt; who
 * holds it; or what became of it. It knows nothing of ranges, cursors or batches.
 */
export class SubscriptionModel {
  readonly name: string
  readonly ordered: boolean = false
  paused = false
  /** The dead letters, by their messages; a replay can make a message die twice. */
  readonly letters: number[] = []
  protected readonly states = new Map<number, State>()
  readonly #maxCrashes: number

  constructor(name: string, maxCrashes: number) {
    this.name = name
    this.#maxCrashes = maxCrashes
  }

  publish(message: number, notBeforeMs: number, _key?: string): void {
    this.states.set(message, { ...FRESH, notBeforeMs })
  }

  /** Checks that every message of the grant was owed just so, and notes who holds it. */
  grant(slot: number, grant: Grant, nowMs: number): void {
    const lease = { slot, grant }
    for (const { event } of grant.messages) {
      const state = this.states.get(event.data as number)
      assert.equal(state?.kind, 'waiting', `${this.name}: message ${event.data} came while ${state?.kind}`)
      this.#checkDue(state as Waiting, grant, nowMs)
      this.states.set(event.data as number, { kind: 'held', lease })
    }
    if (grant.isolated) {
      const suspects = this.heldLeases().filter((held) => held.slot === slot && held.grant.isolated)
      assert.deepEqual(suspects, [lease], 'two suspects out in one process')
    }
  }

  ack(message: number): void {
    this.held(message)
    this.states.set(message, { kind: 'done' })
  }

  retry(message: number, dueAtMs: number): void {
    const { attempt } = this.held(message)
    this.states.set(message, {
      ...FRESH,
      attempt: attempt + 1,
      fresh: false,
      setAside: true,
      notBeforeMs: dueAtMs,
    })
  }

  bury(message: number): void {
    this.letters.push(message)
    this.states.set(message, { kind: 'dead' })
  }

  /** Sets the message aside with nothing counted. */
  park(message: number, untilMs: number): void {
    const { attempt, crashes } = this.held(message)
    this.states.set(message, { ...FRESH, fresh: false, setAside: true, attempt, crashes, notBeforeMs: untilMs })
  }

  release(message: number): void {
    const { attempt, crashes, setAside } = this.held(message)
    this.states.set(message, { ...FRESH, fresh: false, setAside, attempt, crashes })
  }

  /** What `cancel` finds here, and stops. */
  cancel(message: number): 'waiting' | 'running' | undefined {
    const { kind } = this.states.get(message)!
    if (kind !== 'waiting' && kind !== 'held') return undefined
    this.states.set(message, { kind: 'cancelled' })
    return kind === 'held' ? 'running' : 'waiting'
  }

  /** The slot's session is lost: what it held comes again, from `notBeforeMs` on, or dies. */
  loseSession(slot: number, notBeforeMs: number): void {
    for (const [message, { attempt, crashes, isolated, setAside }] of this.#heldBy(slot)) {
      const crashed = crashes + 1
      if (isolated && crashed >= this.#maxCrashes) this.bury(message)
      else this.states.set(message, { ...FRESH, fresh: false, setAside, notBeforeMs, attempt, crashes: crashed })
    }
  }

  closeSession(slot: number): void {
    for (const [message] of this.#heldBy(slot)) this.release(message)
  }

  redrive(message: number): void {
    this.letters.splice(this.letters.indexOf(message), 1)
    this.states.set(message, { ...FRESH, fresh: false, setAside: true })
  }

  /** Moves one partition's cursor. `offset` lies within no lease. */
  seek(partition: number, offset: number, positions: ReadonlyMap<number, Position>): void {
    for (const [message, position] of positions) {
      if (position.partition !== partition) continue
      const state = this.states.get(message)!
      if (position.offset >= offset) this.states.set(message, FRESH)
      else if (state.kind === 'waiting' && state.fresh) this.states.set(message, { kind: 'skipped' })
    }
  }

  /** Whether its dead letter can be redriven without the message being anywhere else. */
  isRedrivable(message: number): boolean {
    return this.states.get(message)?.kind === 'dead'
  }

  /** A message that was released from a lease may be held under another one by now. */
  isHeldUnder(lease: HeldLease, message: number): boolean {
    const state = this.states.get(message)
    return state?.kind === 'held' && state.lease === lease
  }

  heldLeases(): readonly HeldLease[] {
    const leases = [...this.states.values()].map((state) => (state.kind === 'held' ? state.lease : undefined))
    return [...new Set(leases.filter((lease) => lease !== undefined))]
  }

  /** Whether a pull must find something now: suspects may have to wait for each other, others may not. */
  owesNow(nowMs: number): boolean {
    if (this.paused) return false
    return [...this.states.values()].some(
      (state) => state.kind === 'waiting' && state.notBeforeMs <= nowMs && !this.#isSuspect(state),
    )
  }

  /** What is neither acknowledged, dead nor passed over. */
  unfinished(): readonly number[] {
    const open = [...this.states].filter(([, { kind }]) => kind === 'waiting' || kind === 'held')
    return open.map(([message]) => message)
  }

  protected held(message: number): Grant {
    const state = this.states.get(message)
    assert.ok(state?.kind === 'held')
    return state.lease.grant
  }

  #checkDue(owed: Waiting, grant: Grant, nowMs: number): void {
    assert.ok(owed.notBeforeMs <= nowMs, `it came ${owed.notBeforeMs - nowMs} ms early`)
    assert.equal(grant.attempt, owed.attempt)
    assert.equal(grant.crashes, owed.crashes)
    assert.equal(grant.setAside, owed.setAside)
    assert.equal(grant.failures.length, owed.attempt - 1)
    assert.equal(grant.isolated, this.#isSuspect(owed), 'suspects are isolated, and nothing else is')
    if (grant.isolated || grant.setAside) assert.equal(grant.messages.length, 1)
  }

  #isSuspect({ crashes }: Waiting): boolean {
    return crashes > 0 && crashes + 1 >= this.#maxCrashes
  }

  #heldBy(slot: number): (readonly [number, Grant])[] {
    return [...this.states].flatMap(([message, state]) =>
      state.kind === 'held' && state.lease.slot === slot ? [[message, state.lease.grant] as const] : [],
    )
  }
}
