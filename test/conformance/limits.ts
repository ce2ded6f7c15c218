/** Guarantee 8: nothing is dropped silently. What a limit refuses is refused with a code; what fails is kept. */
import assert from 'node:assert/strict'
import type { AppendOutcome } from '../../src/engine.ts'
import { assertCode } from './assertions.ts'
import { dataOf, failure, newGroup, newMessage, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'

export const limits: Guarantee = (test) => {
  test('a full backlog refuses the group with a code, and room makes it accept again', async (world) => {
    const process = await world.process()
    await process.topic({ maxBacklog: 2 })
    const source = await process.subscribe()
    await process.publish(['a'])
    await process.publish(['b'])
    const refusal = await refusalOf(process.engine.append([newGroup([newMessage('c', world.clock.now())])]))
    assertCode(refusal, 'POSTHORN_BACKLOG_FULL')
    assert.equal((await process.topicState()).messages, 2)
    await source.pullOne()
    assert.equal((await process.publish(['d']))[0]?.offset, 2)
  })

  test('the slowest subscription decides', async (world) => {
    const process = await world.process()
    await process.topic({ maxBacklog: 2 })
    const fast = await process.subscribe({ subscription: 'fast' })
    await process.subscription({ subscription: 'slow' })
    await process.publish(['a', 'b'])
    await fast.drain()
    const refusal = await refusalOf(process.engine.append([newGroup([newMessage('c', world.clock.now())])]))
    assertCode(refusal, 'POSTHORN_BACKLOG_FULL')
  })

  test('a refused group does not keep the others from being stored', async (world) => {
    const process = await world.process()
    await process.topic({ topic: 'full', maxBacklog: 1 })
    await process.topic({ topic: 'roomy' })
    await process.subscription({ topic: 'full' })
    await process.publish(['a'], { topic: 'full' })
    const nowMs = world.clock.now()
    const outcomes = await process.engine.append([
      newGroup([newMessage('b', nowMs), newMessage('c', nowMs)], 'full'),
      newGroup([newMessage('d', nowMs)], 'roomy'),
    ])
    assert.deepEqual(
      outcomes.map((outcome) => 'receipts' in outcome),
      [false, true],
    )
    assert.equal((await process.topicState('full')).messages, 1)
  })

  test('the limit can be raised later', async (world) => {
    const process = await world.process()
    await process.topic({ maxBacklog: 1 })
    await process.subscription()
    await process.publish(['a'])
    await process.topic({ maxBacklog: 5 })
    assert.equal((await process.publish(['b']))[0]?.offset, 1)
  })

  test('a large message comes out whole', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const large = 'ä'.repeat(1_000_000)
    await process.publish([large])
    assert.deepEqual(dataOf(await source.pull()), [large])
  })

  test('a grant says how large its messages are, about', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['x'.repeat(10_000), 'y'.repeat(10_000)])
    const sizes: number[] = []
    const first = await source.pullOne()
    sizes.push(first.bytes)
    await source.retry([first], world.clock.now())
    sizes.push((await source.pullOne()).bytes, (await source.pullOne()).bytes)
    for (const size of sizes) assert.ok(size > 10_000 && size < 11_000, `${size} bytes`)
  })

  test('an expiry travels with its message, and an expired message is kept as a dead letter', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const expiresAtMs = world.clock.now() + 1_000
    await process.publish(['brief'], { expiresAtMs })
    const { lease, messages } = await source.pullOne()
    assert.equal(messages[0]?.expiresAtMs, expiresAtMs)
    const expired = { offset: 0, kind: 'dead', reason: 'expired', failure: failure(1, expiresAtMs) } as const
    await source.source.settle([{ lease, acked: [], exceptions: [expired] }])
    const letters = await process.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 10 })
    assert.partialDeepStrictEqual(letters, [{ reason: 'expired', event: { data: 'brief' } }])
  })

  test('a dead letter keeps its message and every failure, also when there are hundreds', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    await process.publish(['hopeless'])
    for (let attempt = 1; attempt < 200; attempt++) await source.retry([await source.pullOne()], world.clock.now())
    await source.dead([await source.pullOne()])
    const [letter] = await process.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 1 })
    assert.equal(letter?.attempts, 200)
    assert.deepEqual(
      letter?.failures.map((one) => one.attempt),
      Array.from({ length: 200 }, (_, step) => step + 1),
    )
    assert.equal(letter?.failures.at(-1)?.message, 'given up')
  })
}

async function refusalOf(appending: Promise<readonly AppendOutcome[]>): Promise<Error> {
  const [outcome] = await appending
  assert.ok(outcome && 'refused' in outcome, 'the group was stored')
  return outcome.refused
}
