import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { DeliveryContext } from '../../src/consumer/consumer.ts'
import type { StoredEvent } from '../../src/engine.ts'
import { type FakeSource, grantOf, settleDown } from './fake-source.ts'
import { startRig } from './harness.ts'

/** Watches what becomes of the transactions of a source. */
function watch(source: FakeSource): string[] {
  const log: string[] = []
  const { transact } = source
  source.transact = async (lease, offset, work) => {
    log.push(`begin ${offset}`)
    try {
      const outcome = await transact.call(source, lease, offset, work)
      log.push(`${outcome} ${offset}`)
      return outcome
    } catch (error) {
      log.push(`rolled back ${offset}`)
      throw error
    }
  }
  return log
}

const settings = { transactional: true, concurrency: 1 }
const failed = new Error('no')

function txOf(context: DeliveryContext): unknown {
  return (context as DeliveryContext & { tx: unknown }).tx
}

describe('a transactional handler', () => {
  test('gets the transaction, and what commits with it is not settled once more', async () => {
    const seen: unknown[] = []
    const handle = (_event: StoredEvent, context: DeliveryContext) => seen.push(txOf(context))
    const { source, consumer, logger } = await startRig({ handle }, settings)
    const log = watch(source)
    source.offer(grantOf([1, 2]))
    await settleDown()
    assert.deepEqual(seen, ['a transaction', 'a transaction'])
    assert.deepEqual(log, ['begin 1', 'committed 1', 'begin 2', 'committed 2'])
    assert.deepEqual(source.settlements, [])
    // Nothing of the grant is left: the lease may be lost without anybody minding.
    source.lose([1])
    assert.deepEqual(logger.matching('warn', 'POSTHORN_LEASE_LOST'), [])
    await consumer.close()
    assert.deepEqual(source.settlements, [])
  })

  test('that throws is rolled back, and fails like any other', async () => {
    const handle = (event: StoredEvent) => {
      if (event.data === 2) throw failed
    }
    const { source, consumer } = await startRig({ handle }, settings)
    const log = watch(source)
    source.offer(grantOf([1, 2, 3]))
    await settleDown()
    assert.deepEqual(log, ['begin 1', 'committed 1', 'begin 2', 'rolled back 2', 'begin 3', 'committed 3'])
    assert.deepEqual(source.verdicts(), ['2 retry'])
    assert.deepEqual(source.acked(), [])
    await consumer.close()
  })

  test('whose lease was lost has no effect; the message is given back for the engine to judge', async () => {
    const { source, consumer, logger } = await startRig({ handle: () => {} }, settings)
    source.transactAnswers.push('fenced')
    source.offer(grantOf([1]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 release'])
    assert.equal(logger.matching('debug', 'rolled back').length, 1)
    await consumer.close()
  })

  test('that outruns its timeout commits nothing when it ends', async () => {
    const gate = Promise.withResolvers<void>()
    const { source, consumer, clock } = await startRig({ handle: () => gate.promise }, settings)
    const log = watch(source)
    source.offer(grantOf([1]))
    await settleDown()
    await clock.advance(30_000)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 retry'])
    gate.resolve()
    await settleDown()
    assert.deepEqual(log, ['begin 1', 'rolled back 1'])
    assert.deepEqual(source.verdicts(), ['1 retry'])
    await consumer.close()
  })

  test('is not called when its time was over before its turn came, which costs no attempt', async () => {
    let calls = 0
    const { source, consumer, clock, logger } = await startRig({ handle: () => calls++ }, settings)
    const turn = Promise.withResolvers<void>()
    source.transact = async (_lease, _offset, work) => {
      await turn.promise
      await work('late')
      return 'committed'
    }
    source.offer(grantOf([1]))
    await settleDown()
    await clock.advance(30_000)
    turn.resolve()
    await settleDown()
    assert.equal(calls, 0)
    assert.deepEqual(source.verdicts(), ['1 park'])
    assert.equal(logger.matching('warn', 'waited for a transaction').length, 1)
    await consumer.close()
  })

  test('has its whole time from when its transaction begins', async () => {
    const gate = Promise.withResolvers<void>()
    const deadlines: number[] = []
    const handle = (_event: StoredEvent, { deadline }: DeliveryContext) => {
      deadlines.push(deadline)
      return gate.promise
    }
    const { source, consumer, clock } = await startRig({ handle }, settings)
    const turn = Promise.withResolvers<void>()
    const { transact } = source
    source.transact = async (lease, offset, work) => {
      await turn.promise
      return transact.call(source, lease, offset, work)
    }
    source.offer(grantOf([1]))
    await settleDown()
    await clock.advance(20_000)
    turn.resolve()
    await settleDown()
    assert.deepEqual(deadlines, [clock.now() + 30_000])
    await clock.advance(29_999)
    await settleDown()
    assert.deepEqual(source.verdicts(), [])
    await clock.advance(1)
    await settleDown()
    assert.deepEqual(source.verdicts(), ['1 retry'])
    gate.resolve()
    await consumer.close()
  })

  test('is checked before its transaction begins', async () => {
    const checkEvent = () => {
      throw failed
    }
    const { source, consumer } = await startRig({ handle: () => {}, checkEvent }, settings)
    const log = watch(source)
    source.offer(grantOf([1]))
    await settleDown()
    assert.deepEqual(log, [])
    assert.deepEqual(source.verdicts(), ['1 dead invalid'])
    await consumer.close()
  })

  test('has no steps', async () => {
    const errors: unknown[] = []
    const handle = async (_event: StoredEvent, { step }: DeliveryContext) => {
      await step('charge', () => 1).catch((error: unknown) => errors.push(error))
    }
    const { source, consumer } = await startRig({ handle }, settings)
    source.offer(grantOf([1]))
    await settleDown()
    assert.equal((errors[0] as { code: string }).code, 'POSTHORN_INVALID_OPTION')
    assert.equal(source.recordedSteps.size, 0)
    await consumer.close()
  })
})
