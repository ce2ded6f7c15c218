/** A store with some of everything that a move has to bring along. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { Grant, RateLimit } from '../../src/engine.ts'
import { failure, newGroup, newMessage, numbersTo } from '../conformance/messages.ts'
import { Bench, type Reader, topicConfig } from '../engines/sqlite/bench.ts'

export const ORDERS = 'orders'
export const MAILS = 'mails'
export const BILLING = { topic: ORDERS, subscription: 'billing' }
export const AUDIT = { topic: ORDERS, subscription: 'audit' }
export const SENDER = { topic: MAILS, subscription: MAILS }

const PARTITIONS = 3
const HOUR_MS = 3_600_000
const LIMIT: RateLimit = { kind: 'rate', name: 'pace', limit: 2, perMs: HOUR_MS, burst: 1, graceMs: 0 }

/** Fills the file, and leaves leases behind as a process does that is killed. */
export async function fillStore(context: TestContext, file: string): Promise<void> {
  const bench = await Bench.open(context, file)
  const { engine } = bench
  await engine.ensureTopic({ ...topicConfig, topic: ORDERS, partitions: PARTITIONS, maxBacklog: 1e6 })
  await engine.ensureTopic({
    ...topicConfig,
    topic: MAILS,
    kind: 'queue',
    retention: { maxAgeMs: 1, maxBytes: 10, dropUnread: false },
  })
  await engine.ensureTopic({ ...topicConfig, topic: 'purged' })
  await bench.subscription({ ...BILLING, ordered: true, maxCrashes: 3 })
  await bench.subscription({ ...AUDIT, maxParked: 77 })
  await bench.subscription(SENDER)
  await publishOrders(bench)
  await bill(await bench.source(BILLING))
  await auditSome(await bench.source({ ...AUDIT, limits: [LIMIT] }))
  await sendMails(bench)
  await bench.publish([1, 2, 3], { topic: 'purged' })
  await engine.admin.purge('purged')
  await engine.admin.pause(AUDIT)
  await bench.crash()
}

async function publishOrders(bench: Bench): Promise<void> {
  const { engine } = bench
  const nowMs = Date.now()
  const messages = numbersTo(300).map((number) => {
    return newMessage({ number, text: 'Grüße, "\\u0000" \u2028' }, nowMs - 300 + number, { key: `user-${number % 10}` })
  })
  for (const part of [messages.slice(0, 120), messages.slice(120)]) await engine.append([newGroup(part, ORDERS)])
  const urgent = numbersTo(5).map((number) =>
    newMessage({ urgent: number }, nowMs, { key: 'user-1', priority: 'high' }),
  )
  await engine.append([newGroup(urgent, ORDERS)])
  for (const id of ['once-1', 'once-2', 'grüße\\2']) {
    await engine.append([newGroup([newMessage({ id }, nowMs, { id })], ORDERS)])
  }
  const later = numbersTo(4).map((number) => newMessage({ number }, nowMs, { deliverAtMs: nowMs + HOUR_MS - number }))
  await engine.append([newGroup(later, ORDERS)])
  await engine.append([newGroup([newMessage(1, nowMs, { id: 'later', deliverAtMs: nowMs + HOUR_MS })], ORDERS)])
  await engine.append([newGroup([newMessage(2, nowMs, { id: 'stopped' })], ORDERS)])
  await engine.admin.cancel(ORDERS, 'stopped')
}

/** Some acknowledged, one chain that waits for a retry, one behind a dead letter, steps, and the rest under lease. */
async function bill(reader: Reader): Promise<void> {
  const grants = await pullSome(reader, 100)
  const retried = new Set<string>()
  for (const grant of grants) {
    for (const { offset, event } of grant.messages) {
      const key = event.subject
      if (key === 'user-1' || key === 'user-2') await setAside(reader, grant, offset, key, retried)
      else if (key === 'user-3') await reader.source.recordStep(grant.lease, offset, 'charge/\\1', '{"paid":true}')
      else if (offset % 3 !== 0)
        await reader.source.settle([{ lease: grant.lease, acked: [offset, offset + 1], exceptions: [] }])
    }
  }
}

async function setAside(reader: Reader, { lease }: Grant, offset: number, key: string, begun: Set<string>) {
  const first = !begun.has(key)
  begun.add(key)
  const failed = failure(1, Date.now(), `no route for ${key}`)
  const exception = !first
    ? ({ offset, kind: 'park', until: 'chain', key } as const)
    : key === 'user-1'
      ? ({ offset, kind: 'retry', dueAtMs: Date.now() + HOUR_MS, failure: failed, key } as const)
      : ({ offset, kind: 'dead', reason: 'attempts', failure: failed, key, blocks: true } as const)
  await reader.source.settle([{ lease, acked: [], exceptions: [exception] }])
}

/** Dead letters, one of them redriven, and a bucket that is not full. */
async function auditSome(reader: Reader): Promise<void> {
  const [first, ...rest] = await pullSome(reader, 40)
  assert.ok(first)
  const exceptions = first.messages.slice(0, 3).map(({ offset }) => {
    return { offset, kind: 'dead', reason: 'discarded', failure: failure(1, Date.now()) } as const
  })
  await reader.source.settle([{ lease: first.lease, acked: [], exceptions }])
  await reader.ack(rest)
  await reader.source.admit([{ buckets: ['everybody'], starts: 1 }], [])
}

async function sendMails(bench: Bench): Promise<void> {
  await bench.publish(numbersTo(10), { topic: MAILS })
  await bench.publish(numbersTo(10), { topic: MAILS })
  const reader = await bench.source(SENDER)
  await reader.ack(await pullSome(reader, 12))
  const [held] = await pullSome(reader, 4)
  assert.ok(held)
  const { offset } = held.messages[0]!
  const failed = failure(1, Date.now())
  await reader.source.settle([
    { lease: held.lease, acked: [], exceptions: [{ offset, kind: 'dead', reason: 'attempts', failure: failed }] },
  ])
  await bench.engine.admin.redrive(SENDER, {})
  await bench.engine.admin.applyRetention()
}

/** Waits for as many messages. */
async function pullSome(reader: Reader, count: number): Promise<Grant[]> {
  const all: Grant[] = []
  for (let left = count; left > 0; ) {
    const grants = await reader.pull(left)
    left -= grants.reduce((total, { messages }) => total + messages.length, 0)
    all.push(...grants)
  }
  return all
}
