import assert from 'node:assert/strict'
import type { AsyncCommand } from 'fast-check'
import type { Grant, SettledException } from '../../src/engine.ts'
import { failure, newGroup, newMessage, TOPIC } from '../conformance/messages.ts'
import { LEASE_MS } from '../conformance/world.ts'
import type { Model } from './model.ts'
import { parkBehindChains } from './ordered-commands.ts'
import type { Positions, Real } from './real.ts'
import type { Position, SubscriptionModel } from './subscription-model.ts'

export type Run = (model: Model, real: Real) => Promise<void>

/** A step that is possible in every state, and shows itself as `text` in a counterexample. */
export function step(text: string, run: Run): AsyncCommand<Model, Real> {
  return { check: () => true, run, toString: () => text }
}

export interface NewItem {
  readonly key?: string | undefined
  readonly id?: string | undefined
  readonly delayMs: number
  readonly priority?: 'high' | 'low' | undefined
}

export function publish(slot: number, items: readonly NewItem[]): Run {
  return async (model, real) => {
    const expected: boolean[] = []
    const messages = items.map(({ key, id, delayMs, priority }) => {
      const message = model.nextMessage()
      const isNew = id === undefined || model.rememberId(id, real.nowMs)
      const deliverAtMs = real.nowMs + delayMs
      expected.push(!isNew)
      const made = newMessage(message, real.nowMs, {
        ...(key !== undefined && { key }),
        ...(id !== undefined && { id }),
        ...(delayMs > 0 && { deliverAtMs }),
        ...(priority !== undefined && { priority }),
      })
      if (isNew) model.publish({ message, id: made.id, notBeforeMs: deliverAtMs }, key)
      return made
    })
    const [outcome] = await (await real.process(slot)).engine.append([newGroup(messages)])
    assert.ok(outcome && 'receipts' in outcome)
    assert.deepEqual(
      outcome.receipts.map(({ duplicate }) => duplicate),
      expected,
    )
  }
}

export function pull(slot: number, subscription: number, messagesMax: number): Run {
  return async (model, real) => {
    const owner = model.subscriptions[subscription]!
    const source = await real.source(slot, owner.name)
    const owes = real.nowMs > model.sessionsLostAtMs && owner.owesNow(real.nowMs)
    const grants = await source.pullNow(messagesMax)
    if (owner.paused) assert.deepEqual(grants, [])
    if (owes) assert.ok(grants.length > 0, `${owner.name} owes messages and gave none`)
    assert.ok(grants.reduce((total, { messages }) => total + messages.length, 0) <= messagesMax)
    for (const grant of grants) owner.grant(slot, grant, real.nowMs)
    if (owner === model.ordered) await parkBehindChains(slot, grants, model.ordered, source)
  }
}

export type Outcome = 'ack' | 'retry' | 'dead' | 'release' | 'leave'

/** Settles a held lease of an unordered subscription, wholly or in part: the outcomes are dealt out to its messages in turn. */
export function settle(choice: number, outcomes: readonly Outcome[], retryMs: number): Run {
  return async (model, real) => {
    const held = model.heldLeases().filter(({ subscription }) => !subscription.ordered)
    const chosen = held[choice % held.length]
    if (!chosen) return
    const { subscription, lease } = chosen
    const { grant, slot } = lease
    const acked: number[] = []
    const exceptions: SettledException[] = []
    for (const [place, { offset, event }] of grant.messages.entries()) {
      if (!subscription.isHeldUnder(lease, event.data as number)) continue
      const outcome = outcomes[place % outcomes.length]!
      if (outcome === 'ack') acked.push(offset, offset + 1)
      else if (outcome !== 'leave') exceptions.push(exception(outcome, offset, grant, real.nowMs + retryMs, real.nowMs))
      note(subscription, outcome, event.data as number, real.nowMs + retryMs)
    }
    const source = await real.source(slot, subscription.name)
    assert.deepEqual(
      await source.source.settle([{ lease: grant.lease, acked, exceptions }]),
      [],
      'a held lease was fenced',
    )
  }
}

function exception(
  kind: 'retry' | 'dead' | 'release',
  offset: number,
  grant: Grant,
  dueAtMs: number,
  nowMs: number,
): SettledException {
  if (kind === 'release') return { offset, kind }
  const last = failure(grant.attempt, nowMs)
  return kind === 'dead'
    ? { offset, kind, reason: 'attempts', failure: last }
    : { offset, kind, dueAtMs, failure: last }
}

function note(subscription: SubscriptionModel, outcome: Outcome, message: number, dueAtMs: number): void {
  if (outcome === 'ack') subscription.ack(message)
  else if (outcome === 'retry') subscription.retry(message, dueAtMs)
  else if (outcome === 'dead') subscription.bury(message)
  else if (outcome === 'release') subscription.release(message)
}

/** Tries to settle under a lease that was lost: it must be fenced. That it changed nothing shows later. */
export function settleGhost(choice: number): Run {
  return async (_model, real) => {
    const ghost = real.ghosts[choice % real.ghosts.length]
    if (!ghost) return
    const { source, grant } = ghost
    const settlings = [
      () => source.ack([grant]),
      () => source.dead([grant]),
      () => source.retry([grant], 0),
      () => source.release([grant]),
    ]
    assert.deepEqual(await settlings[choice % settlings.length]!(), [grant.lease])
  }
}

export function advance(durationMs: number): Run {
  return (_model, real) => real.world.advance(durationMs)
}

export function close(slot: number): Run {
  return async (model, real) => {
    for (const subscription of model.subscriptions) subscription.closeSession(slot)
    await real.close(slot)
  }
}

/** The session may have been renewed as long ago as a third of its lease. */
export function crash(slot: number): Run {
  return async (model, real) => {
    const notBeforeMs = real.nowMs + LEASE_MS - Math.ceil(LEASE_MS / 3)
    for (const subscription of model.subscriptions) subscription.loseSession(slot, notBeforeMs)
    model.sessionsLostAtMs = real.nowMs + LEASE_MS
    await real.crash(slot)
  }
}

/** The process's event loop is blocked until another one has given its session up; then it goes on. */
export function stall(slot: number, witness: number): Run {
  return async (model, real) => {
    if (slot === witness) return
    const [process, other] = [await real.process(slot), await real.process(witness)]
    const sourceOf = (subscription: SubscriptionModel) => real.source(slot, subscription.name)
    for (const { subscription, lease } of model.heldLeases()) {
      if (lease.slot !== slot) continue
      real.ghosts.push({ slot, source: await sourceOf(subscription), grant: lease.grant })
    }
    process.stall()
    await real.world.outliveLeases()
    await other.roundTrip()
    process.goOn()
    // Until it takes a turn it may not know what time it is: others give a session up at once that it began just now.
    await process.roundTrip()
    for (const subscription of model.subscriptions) subscription.loseSession(slot, real.nowMs)
  }
}

/** Moves one partition, or all of them, back or forth. */
export function seek(slot: number, subscription: number, target: 'earliest' | 'latest' | Position): Run {
  return async (model, real) => {
    if (model.cancelled.size > 0) return
    const owner = model.subscriptions[subscription]!
    const process = await real.process(slot)
    if (real.nowMs <= model.sessionsLostAtMs) await real.world.outliveLeases()
    const known = await real.positions(process)
    const place = { topic: TOPIC, subscription: owner.name }
    if (typeof target === 'string') {
      await process.admin.seek(place, { at: target })
      for (const [partition, end] of known.ends) {
        await moveModel(owner, real, { partition, offset: target === 'latest' ? end : 0 }, known)
      }
    } else if (known.ends.has(target.partition)) {
      const offset = leaseBoundary(owner, target, known)
      await process.admin.seek(place, { partition: target.partition, offset })
      await moveModel(owner, real, { partition: target.partition, offset }, known)
    }
  }
}

/** The contract leaves open what becomes of the front of a lease across the position: go to where the lease begins. */
function leaseBoundary(owner: SubscriptionModel, target: Position, { ends }: Positions): number {
  let boundary = Math.min(target.offset, ends.get(target.partition)!)
  for (const { grant } of owner.heldLeases()) {
    const [from, last] = [grant.messages[0]!.offset, grant.messages.at(-1)!.offset]
    if (grant.partition === target.partition && from < boundary && boundary <= last) boundary = from
  }
  return boundary
}

async function moveModel(
  owner: SubscriptionModel,
  real: Real,
  { partition, offset }: Position,
  { positions }: Positions,
): Promise<void> {
  for (const { slot, grant } of owner.heldLeases()) {
    if (grant.partition !== partition || grant.messages[0]!.offset < offset) continue
    real.ghosts.push({ slot, source: await real.source(slot, owner.name), grant })
  }
  owner.seek(partition, offset, positions)
}

export function pause(slot: number, subscription: number, paused: boolean): Run {
  return async (model, real) => {
    const owner = model.subscriptions[subscription]!
    const { admin } = await real.process(slot)
    const place = { topic: TOPIC, subscription: owner.name }
    await (paused ? admin.pause(place) : admin.resume(place))
    owner.paused = paused
  }
}

/** Redrives the dead letters whose messages are nowhere else: a replay may have brought the others back already. */
export function redrive(slot: number, subscription: number): Run {
  return async (model, real) => {
    const owner = model.subscriptions[subscription]!
    const { admin } = await real.process(slot)
    if (real.nowMs <= model.sessionsLostAtMs) await real.world.outliveLeases()
    const place = { topic: TOPIC, subscription: owner.name }
    const chosen = new Map<number, number>()
    for (const { id, event } of await admin.deadLetters(place, { limit: 10_000 })) {
      if (owner.isRedrivable(event?.data as number)) chosen.set(event?.data as number, id)
    }
    assert.equal(await admin.redrive(place, { ids: [...chosen.values()] }), chosen.size)
    for (const message of chosen.keys()) owner.redrive(message)
  }
}

/** Cancels a message, and expects of each subscription what it knows. */
export function cancel(slot: number, choice: number): Run {
  return async (model, real) => {
    const { message, id, notBeforeMs } = model.published[choice % model.published.length] ?? {}
    if (message === undefined || id === undefined || notBeforeMs === undefined) return
    // Once its window is over, an id may be there twice.
    if (model.published.filter((other) => other.id === id).length > 1) return
    if (model.cancelled.has(message) || model.ordered.isHeldUp(message)) return
    const { admin } = await real.process(slot)
    if (real.nowMs <= model.sessionsLostAtMs) await real.world.outliveLeases()
    const outcome = await admin.cancel(TOPIC, id)
    const found = model.subscriptions.map((subscription) => subscription.cancel(message))
    model.cancelled.add(message)
    if (notBeforeMs > real.nowMs) return assert.deepEqual(outcome, { delayed: 1, waiting: 0, running: 0 })
    // An engine may still be about to move what is due into the log.
    if (outcome.delayed === 1) return assert.ok(found.every((place) => place === 'waiting'))
    const count = (place: 'waiting' | 'running') => found.filter((one) => one === place).length
    assert.deepEqual(outcome, { delayed: 0, waiting: count('waiting'), running: count('running') })
  }
}
