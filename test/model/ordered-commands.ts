import assert from 'node:assert/strict'
import type { Grant, SettledException, Settlement } from '../../src/engine.ts'
import { failure, TOPIC } from '../conformance/messages.ts'
import type { TestSource } from '../conformance/test-source.ts'
import type { Run } from './commands.ts'
import type { HeldLane, OrderedModel } from './ordered-model.ts'
import type { Real } from './real.ts'

export type LaneOutcome = 'ack' | 'retry' | 'dead' | 'block' | 'park' | 'overflow' | 'release'

/** Sets aside at once what arrived behind the chain of its key. */
export async function parkBehindChains(
  slot: number,
  grants: readonly Grant[],
  owner: OrderedModel,
  source: TestSource,
): Promise<void> {
  const late = grants
    .filter(({ setAside }) => !setAside)
    .flatMap(({ messages }) => messages.map(({ event }) => event.data as number))
    .filter((message) => owner.isBehindChain(message))
  if (late.length === 0) return
  const plan = new Map(late.map((message) => [message, parked(owner, message, 'chain')] as const))
  await send(owner, source, plan, [])
  assert.ok(late.every((message) => owner.leaseOf(message).slot === slot))
  for (const message of late) owner.parkInChain(message)
}

/** Settles the first message of a key that a slot holds, and with it those of the key that wait behind it there. */
export function settleLane(choice: number, wanted: LaneOutcome, delayMs: number): Run {
  return async ({ ordered: owner }, real) => {
    const lanes = owner.heldLanes()
    const lane = lanes[choice % lanes.length]
    if (!lane) return
    const outcome = possible(owner, lane, wanted)
    const dueAtMs = real.nowMs + delayMs
    const plan = planFor(owner, real, lane, outcome, dueAtMs)
    const endsForGood = outcome === 'ack' || outcome === 'dead'
    const freed = endsForGood && owner.hasOverflowed(lane.messages[0]!) ? [lane.key!] : []
    await send(owner, await real.source(lane.slot, owner.name), plan, freed)
    note(owner, lane, outcome, dueAtMs)
    if (freed.length > 0) owner.free(lane.messages[0]!)
  }
}

/** Deletes the oldest dead letter that blocks its key. */
export function skip(slot: number): Run {
  return async ({ ordered: owner }, real) => {
    const place = { topic: TOPIC, subscription: owner.name }
    const { admin } = await real.process(slot)
    const letters = await admin.deadLetters(place, { limit: 10_000 })
    const letter = letters.find(({ blocking }) => blocking)
    assert.equal(letter !== undefined, owner.hasBlocked())
    if (!letter) return
    const message = letter.event?.data as number
    assert.ok(owner.isBlocking(message))
    assert.equal(await admin.deleteDeadLetters(place, [letter.id]), 1)
    owner.skip(message)
  }
}

// Without a key there is nothing to block or to overflow; what has overflowed is freed by what ends for good.
function possible(owner: OrderedModel, { key, messages }: HeldLane, wanted: LaneOutcome): LaneOutcome {
  if (key === undefined) return wanted === 'block' ? 'dead' : wanted === 'overflow' ? 'ack' : wanted
  if (wanted === 'overflow') return messages.length > 1 ? wanted : 'ack'
  const waits = wanted === 'retry' || wanted === 'block' || wanted === 'park' || wanted === 'release'
  return waits && owner.hasOverflowed(messages[0]!) ? 'ack' : wanted
}

type Plan = ReadonlyMap<number, SettledException | 'ack'>

function planFor(owner: OrderedModel, real: Real, lane: HeldLane, outcome: LaneOutcome, dueAtMs: number): Plan {
  const [head, ...behind] = lane.messages
  const plan = new Map<number, SettledException | 'ack'>()
  const { offset } = owner.placeOf(head!)
  const failed = failure(owner.leaseOf(head!).grant.attempt, real.nowMs)
  const key = lane.key === undefined ? {} : { key: lane.key }
  const dead = { offset, kind: 'dead', reason: 'attempts', failure: failed, ...key } as const
  if (outcome === 'ack') plan.set(head!, 'ack')
  else if (outcome === 'retry') plan.set(head!, { offset, kind: 'retry', dueAtMs, failure: failed, ...key })
  else if (outcome === 'dead') plan.set(head!, dead)
  else if (outcome === 'block') plan.set(head!, { ...dead, blocks: true })
  else if (outcome === 'park') plan.set(head!, parked(owner, head!, dueAtMs))
  else if (outcome === 'release') plan.set(head!, { offset, kind: 'release' })
  for (const message of outcome === 'ack' || outcome === 'dead' ? [] : behind) {
    plan.set(message, follows(owner, message, outcome))
  }
  return plan
}

function follows(owner: OrderedModel, message: number, outcome: LaneOutcome): SettledException {
  if (outcome === 'release') return { offset: owner.placeOf(message).offset, kind: 'release' }
  return parked(owner, message, outcome === 'overflow' ? 'freed' : 'chain')
}

function parked(owner: OrderedModel, message: number, until: number | 'chain' | 'freed'): SettledException {
  const key = owner.keyOf(message)
  return { offset: owner.placeOf(message).offset, kind: 'park', until, ...(key !== undefined && { key }) }
}

async function send(owner: OrderedModel, source: TestSource, plan: Plan, freed: readonly string[]): Promise<void> {
  const settlements = new Map<number, { acked: number[]; exceptions: SettledException[] }>()
  for (const [message, what] of plan) {
    const { lease } = owner.leaseOf(message).grant
    const settlement = settlements.get(lease) ?? { acked: [], exceptions: [] }
    const { offset } = owner.placeOf(message)
    if (what === 'ack') settlement.acked.push(offset, offset + 1)
    else settlement.exceptions.push(what)
    settlements.set(lease, settlement)
  }
  const all: Settlement[] = [...settlements].map(([lease, settlement]) => ({ lease, ...settlement }))
  if (freed.length > 0) all[0] = { ...all[0]!, freed }
  assert.deepEqual(await source.settle(all), [], 'a held lease was fenced')
}

function note(owner: OrderedModel, { messages }: HeldLane, outcome: LaneOutcome, dueAtMs: number): void {
  const [head, ...behind] = messages
  if (outcome === 'ack') owner.ack(head!)
  else if (outcome === 'dead') owner.bury(head!)
  else if (outcome === 'retry') owner.retry(head!, dueAtMs)
  else if (outcome === 'block') owner.block(head!)
  else if (outcome === 'park') owner.park(head!, dueAtMs)
  else if (outcome === 'release') owner.release(head!)
  for (const message of outcome === 'ack' || outcome === 'dead' ? [] : behind) {
    if (outcome === 'release') owner.release(message)
    else if (outcome === 'overflow') owner.parkUntilFreed(message)
    else owner.parkInChain(message)
  }
}
