/**
 * What an ordered subscription owes, to consumers that keep to the contract: they settle the messages of a key one
 * after the other, park what follows a failed one together with it, and park what arrives behind a key's chain.
 *
 * Beyond what every subscription owes: a partition has one holder at a time; what came back to a partition comes
 * first, by offset; of what was set aside for a key, nothing comes before what stands before it, nor before its turn.
 */
import assert from 'node:assert/strict'
import type { Grant, KeyChain } from '../../src/engine.ts'
import { type HeldLease, type Position, type State, SubscriptionModel, type Waiting } from './subscription-model.ts'

/** Behind others of its key, or until the key is freed. */
const NEVER_BY_ITSELF = Number.POSITIVE_INFINITY

interface Place extends Position {
  readonly message: number
}

/** Messages of a key that one slot holds, by offset; or a single one without a key. */
export interface HeldLane {
  readonly slot: number
  readonly key: string | undefined
  readonly messages: readonly number[]
}

export class OrderedModel extends SubscriptionModel {
  override readonly ordered = true
  readonly #keys = new Map<number, string | undefined>()
  /** Of messages that were granted before. */
  readonly #places = new Map<number, Place>()
  readonly #blocking = new Set<number>()
  readonly #overflowed = new Set<number>()
  readonly #diedOfCrashes = new Set<number>()
  /** Set aside, let go, and then held by a session that was lost: they come again once that is noticed. */
  readonly #lost = new Set<number>()
  /** Who had the last grant of a partition. */
  readonly #owners = new Map<number, string>()
  readonly #sessions = new Map<number, number>()

  override publish(message: number, notBeforeMs: number, key?: string): void {
    super.publish(message, notBeforeMs)
    this.#keys.set(message, key)
  }

  override grant(slot: number, grant: Grant, nowMs: number): void {
    const { partition } = grant
    for (const held of this.heldLeases()) {
      if (held.grant.partition === partition) assert.equal(held.slot, slot, 'two sources hold leases in a partition')
    }
    this.#takeOver(slot, grant)
    for (const { event, offset } of grant.messages) {
      const message = event.data as number
      this.#places.set(message, { message, partition, offset })
      this.#lost.delete(message)
      this.#checkTurn(message, grant)
    }
    super.grant(slot, grant, nowMs)
  }

  /** The key of a message that has one, and the lane that it is to be settled in. */
  keyOf(message: number): string | undefined {
    return this.#keys.get(message)
  }

  placeOf(message: number): Place {
    return this.#places.get(message)!
  }

  heldLanes(): readonly HeldLane[] {
    const lanes = new Map<string, { slot: number; key: string | undefined; messages: number[] }>()
    for (const [message, state] of this.states) {
      if (state.kind !== 'held') continue
      const { slot } = state.lease
      const key = this.keyOf(message)
      const name = key === undefined ? `${slot}/${message}` : `${slot}:${this.placeOf(message).partition}:${key}`
      const lane = lanes.get(name) ?? { slot, key, messages: [] }
      lane.messages.push(message)
      lanes.set(name, lane)
    }
    for (const { messages } of lanes.values()) messages.sort((one, other) => this.#offset(one) - this.#offset(other))
    return [...lanes.values()]
  }

  /** Whether something of the message's key is in the store and stands before it. */
  isBehindChain(message: number): boolean {
    return this.#chain(message).some((other) => this.#offset(other) < this.#offset(message))
  }

  parkInChain(message: number): void {
    const isBehind = this.isBehindChain(message)
    this.park(message, isBehind ? NEVER_BY_ITSELF : 0)
  }

  parkUntilFreed(message: number): void {
    this.park(message, NEVER_BY_ITSELF)
    this.#overflowed.add(message)
  }

  /** Whether some of the message's key waits until the key is freed. */
  hasOverflowed(message: number): boolean {
    return this.#chain(message).some((other) => {
      return this.#overflowed.has(other) && this.#row(other)?.notBeforeMs === NEVER_BY_ITSELF
    })
  }

  /** Whether the message runs while others of its key wait until its settlement frees them. */
  isHeldUp(message: number): boolean {
    return this.states.get(message)?.kind === 'held' && this.hasOverflowed(message)
  }

  leaseOf(message: number): HeldLease {
    const state = this.states.get(message)
    assert.ok(state?.kind === 'held')
    return state.lease
  }

  free(message: number): void {
    this.#letGo(this.#chain(message))
  }

  override ack(message: number): void {
    const { setAside } = this.held(message)
    super.ack(message)
    if (setAside) this.#letGo(this.#chain(message))
  }

  override bury(message: number): void {
    const state = this.states.get(message)
    super.bury(message)
    if (state?.kind === 'held' && state.lease.grant.setAside) this.#letGo(this.#chain(message))
  }

  override retry(message: number, dueAtMs: number): void {
    super.retry(message, dueAtMs)
    this.#holdBackBehind(message)
  }

  override park(message: number, untilMs: number): void {
    super.park(message, untilMs)
    this.#holdBackBehind(message)
  }

  block(message: number): void {
    super.bury(message)
    this.#blocking.add(message)
    this.#holdBackBehind(message)
  }

  hasBlocked(): boolean {
    return this.#blocking.size > 0
  }

  isBlocking(message: number): boolean {
    return this.#blocking.has(message)
  }

  /** The dead letter was deleted. */
  skip(message: number): void {
    this.letters.splice(this.letters.indexOf(message), 1)
    this.states.set(message, { kind: 'done' })
    this.#blocking.delete(message)
    this.#letGo(this.#chain(message))
  }

  override cancel(message: number): 'waiting' | 'running' | undefined {
    const state = this.states.get(message)!
    const found = super.cancel(message)
    if (found && isSetAside(state)) this.#letGo(this.#chain(message))
    return found
  }

  override redrive(message: number): void {
    super.redrive(message)
    this.#blocking.delete(message)
  }

  // Nobody has told the engine the key of a message that died of crashes alone: what becomes of it is left open. And
  // what does not block its key may not overtake what its key has under way.
  override isRedrivable(message: number): boolean {
    if (!super.isRedrivable(message) || this.#diedOfCrashes.has(message)) return false
    if (this.#blocking.has(message) || this.keyOf(message) === undefined) return true
    const isHeld = this.heldLanes().some(({ key }) => key === this.keyOf(message))
    return !isHeld && this.#chain(message).length === 0
  }

  override loseSession(slot: number, notBeforeMs: number): void {
    this.#endSession(slot)
    const held = this.heldLanes().filter((lane) => lane.slot === slot)
    const messages = held.flatMap((lane) => lane.messages)
    const ofLog = messages.filter((message) => !this.held(message).setAside)
    super.loseSession(slot, notBeforeMs)
    for (const message of messages) if (this.#row(message)) this.#lost.add(message)
    for (const message of ofLog) if (super.isRedrivable(message)) this.#diedOfCrashes.add(message)
  }

  override closeSession(slot: number): void {
    this.#endSession(slot)
    super.closeSession(slot)
  }

  override seek(partition: number, offset: number, positions: ReadonlyMap<number, Position>): void {
    super.seek(partition, offset, positions)
    for (const message of this.#blocking) {
      const place = this.placeOf(message)
      if (place.partition === partition && place.offset >= offset) this.#blocking.delete(message)
    }
    // What they waited for may be gone: an owner that still runs it sets them aside again.
    for (const messages of this.#chainsIn(partition).values()) this.#letGo(messages)
  }

  // Who is first, or has to wait, depends on partitions that others own; that all comes in the end is checked there.
  override owesNow(): boolean {
    return false
  }

  #endSession(slot: number): void {
    this.#sessions.set(slot, (this.#sessions.get(slot) ?? 0) + 1)
  }

  #takeOver(slot: number, { partition, takeover }: Grant): void {
    const owner = `${slot}/${this.#sessions.get(slot) ?? 0}`
    if (this.#owners.get(partition) !== owner) assert.ok(takeover, 'a partition was taken over silently')
    this.#owners.set(partition, owner)
    if (takeover === undefined) return
    const chains = this.#chainsIn(partition)
    assert.deepEqual(
      takeover.map(({ key }) => key).toSorted(),
      [...chains.keys()].toSorted(),
      'takeover names the keys that have chains',
    )
    for (const chain of takeover) this.#checkChain(chain, chains.get(chain.key)!)
    for (const messages of chains.values()) this.#letGo(messages)
  }

  #checkChain({ firstOffset, lastOffset }: KeyChain, messages: readonly number[]): void {
    assert.equal(lastOffset, this.#offset(messages.at(-1)!))
    if (!this.#blocking.has(messages[0]!)) assert.equal(firstOffset, this.#offset(messages[0]!))
  }

  #checkTurn(message: number, { partition, setAside, messages }: Grant): void {
    const offset = this.#offset(message)
    const isOfLog = !setAside && !this.#isReturned(message, partition)
    const together = new Set(messages.map(({ event }) => event.data as number))
    const passed = [...this.states.keys()].filter((other) => {
      if (together.has(other) || !this.#isReturned(other, partition)) return false
      return setAside || isOfLog || this.#offset(other) < offset
    })
    assert.deepEqual(passed, [], 'what came back to a partition comes before everything else of it')
    if (!setAside) return
    const before = this.#chain(message).filter((other) => this.#offset(other) < offset)
    const waiting = before.filter((other) => this.#blocking.has(other) || this.states.get(other)?.kind === 'waiting')
    assert.deepEqual(waiting, [], 'what was set aside comes after what stands before it in its chain')
  }

  #isReturned(message: number, partition: number): boolean {
    const state = this.states.get(message)
    if (state?.kind !== 'waiting' || state.fresh || state.setAside) return false
    return this.#places.get(message)?.partition === partition
  }

  /** What the store has of the key of a message, by offset: set aside, under lease or not, or a dead letter that blocks. */
  #chain(message: number): readonly number[] {
    const key = this.keyOf(message)
    if (key === undefined) return []
    return this.#chainsIn(this.placeOf(message).partition).get(key) ?? []
  }

  #chainsIn(partition: number): ReadonlyMap<string, number[]> {
    const chains = new Map<string, number[]>()
    for (const [message, state] of this.states) {
      const key = this.keyOf(message)
      if (key === undefined || this.#places.get(message)?.partition !== partition) continue
      if (!isSetAside(state) && !this.#blocking.has(message)) continue
      chains.set(key, [...(chains.get(key) ?? []), message])
    }
    for (const messages of chains.values()) messages.sort((one, other) => this.#offset(one) - this.#offset(other))
    return chains
  }

  /** The first of the chain is due, and so may be what stands right behind it. */
  #letGo(messages: readonly number[]): void {
    for (const message of messages) {
      if (this.#blocking.has(message)) return
      const row = this.#row(message)
      if (row === undefined) continue
      if (row.notBeforeMs === NEVER_BY_ITSELF) this.states.set(message, { ...row, notBeforeMs: 0 })
      else if (!this.#isLetGo(message, row)) return
    }
  }

  /** What had become due behind a message waits again. */
  #holdBackBehind(message: number): void {
    for (const other of this.#chain(message)) {
      const row = this.#row(other)
      if (row === undefined || !this.#isLetGo(other, row)) continue
      if (this.#offset(other) <= this.#offset(message)) continue
      this.#lost.delete(other)
      this.states.set(other, { ...row, notBeforeMs: NEVER_BY_ITSELF })
    }
  }

  #isLetGo(message: number, { notBeforeMs }: Waiting): boolean {
    return notBeforeMs === 0 || this.#lost.has(message)
  }

  #row(message: number): Waiting | undefined {
    const state = this.states.get(message)
    return state?.kind === 'waiting' && state.setAside ? state : undefined
  }

  #offset(message: number): number {
    return this.placeOf(message).offset
  }
}

function isSetAside(state: State): boolean {
  if (state.kind === 'waiting') return state.setAside
  return state.kind === 'held' && state.lease.grant.setAside
}
