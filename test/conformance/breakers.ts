/** Breakers that are not closed are shown to operators. */
import assert from 'node:assert/strict'
import type { BreakerReport } from '../../src/engine.ts'
import type { Guarantee } from './suite.ts'

export const breakers: Guarantee = (test) => {
  test('a reported breaker is shown with its consumer, until it is reported as closed', async (world) => {
    const [worker, operator] = [await world.process(), await world.process()]
    await worker.topic()
    await worker.subscription({ subscription: 'other' })
    const source = await worker.subscribe()
    assert.deepEqual((await operator.state()).breakers, [])
    const open: BreakerReport = {
      state: 'open',
      openedAtMs: world.clock.now(),
      probeAtMs: world.clock.now() + 1_000,
      reason: 'connect ECONNREFUSED',
    }
    await source.source.reportBreaker(open)
    const [consumer] = await operator.admin.consumers()
    assert.deepEqual((await operator.state()).breakers, [{ ...open, consumer: consumer!.id }])
    assert.deepEqual((await operator.state('other')).breakers, [])
    const ramping: BreakerReport = { state: 'ramping', openedAtMs: open.openedAtMs, reason: open.reason }
    await source.source.reportBreaker(ramping)
    assert.deepEqual((await operator.state()).breakers, [{ ...ramping, consumer: consumer!.id }])
    await source.source.reportBreaker(undefined)
    assert.deepEqual((await operator.state()).breakers, [])
  })

  test('each process has its own, and it goes with the source', async (world) => {
    const [one, other] = [await world.process(), await world.process()]
    await one.topic()
    const sources = [await one.subscribe(), await other.source()]
    const reasons = ['refused', 'timed out']
    for (const [place, reason] of reasons.entries()) {
      await sources[place]!.source.reportBreaker({ state: 'half-open', openedAtMs: world.clock.now(), reason })
    }
    assert.deepEqual((await one.state()).breakers.map(({ reason }) => reason).toSorted(), reasons)
    await sources[0]!.close()
    assert.deepEqual(
      (await one.state()).breakers.map(({ reason }) => reason),
      ['timed out'],
    )
  })

  test('that of a dead process goes with its session', async (world) => {
    const [doomed, survivor] = [await world.process(), await world.process()]
    await doomed.topic()
    const source = await doomed.subscribe()
    await source.source.reportBreaker({ state: 'open', openedAtMs: world.clock.now(), reason: 'refused' })
    await doomed.crash()
    assert.equal((await survivor.state()).breakers.length, 1)
    await world.outliveLeases()
    await world.eventually(async () => assert.deepEqual((await survivor.state()).breakers, []))
  })
}
