import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { StoredEvent } from '../../src/engine.ts'
import { grantOf, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS, startRig } from './harness.ts'
import { finish } from './ordered-rig.ts'

/** A consumer with one handler, which runs the first of two messages when the lease ends. */
async function startExpired() {
  const handler = new HeldHandler()
  const rig = await startRig({ handle: handler.handle }, { concurrency: 1 })
  rig.source.leasedUntilMs = START_MS + 10_000
  rig.source.offer(grantOf([0, 1]))
  await settleDown()
  await rig.clock.advance(10_000)
  handler.of(0).resolve()
  await settleDown()
  return { ...rig, handler }
}

describe('when a lease has ended', () => {
  test('nothing is begun under it', async () => {
    const rig = await startExpired()
    await rig.clock.advance(60_000)
    assert.deepEqual(rig.handler.started, [0])
    assert.deepEqual(rig.source.acked(), [0], 'what became of the others is up to the engine')
    await finish(rig)
  })

  test('what waited is begun once it is renewed', async () => {
    const rig = await startExpired()
    rig.source.leasedUntilMs = rig.clock.now() + 10_000
    await rig.clock.advance(100)
    assert.deepEqual(rig.handler.started, [0, 1])
    await finish(rig)
  })

  test('what waited is forgotten once it is lost, and the next ones are begun', async () => {
    const rig = await startExpired()
    rig.source.lose([0])
    rig.source.leasedUntilMs = rig.clock.now() + 10_000
    rig.source.offer(grantOf([2], { lease: 7 }))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 2])
    await finish(rig)
  })

  for (const batch of [undefined, { size: 1, waitMs: 0 }]) {
    const kind = batch ? 'batch' : 'message'
    test(`a ${kind} whose check was under way then is given back`, async () => {
      const handler = new HeldHandler()
      const check = Promise.withResolvers<void>()
      const checkEvent = (event: StoredEvent) => check.promise.then(() => event)
      const handlers = batch
        ? { handleBatch: ([event]: readonly StoredEvent[]) => handler.handle(event!), checkEvent }
        : { handle: handler.handle, checkEvent }
      const rig = await startRig(handlers, { concurrency: 1, ...(batch && { batch }) })
      rig.source.leasedUntilMs = START_MS + 10_000
      rig.source.offer(grantOf([0]))
      await settleDown()
      await rig.clock.advance(10_000)
      check.resolve()
      await settleDown()
      assert.deepEqual(handler.started, [])
      assert.deepEqual(rig.source.exceptions(), [{ offset: 0, kind: 'release' }])
      await finish({ ...rig, handler })
    })
  }

  test('a moment before, messages are begun as ever', async () => {
    const handler = new HeldHandler()
    const rig = await startRig({ handle: handler.handle }, { concurrency: 1 })
    rig.source.leasedUntilMs = START_MS + 10_000
    await rig.clock.advance(9_999)
    rig.source.offer(grantOf([0]))
    await settleDown()
    assert.deepEqual(handler.started, [0])
    await finish({ ...rig, handler })
  })
})
