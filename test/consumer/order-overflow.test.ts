import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { pause } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { keyedGrant, offsets, settleDown } from './fake-source.ts'
import { START_MS, startRig } from './harness.ts'
import { finish, ordered, startHeld } from './ordered-rig.ts'

describe('one slow key', () => {
  // So many that nothing else fits beside them.
  const many = 10_000
  const slow = (from: number, messages: number) =>
    keyedGrant(
      from,
      Array.from({ length: messages }, () => 'slow'),
    )

  async function crowd() {
    const rig = await startHeld({ concurrency: 2 })
    const { source, clock } = rig
    source.offer(slow(0, many + 1))
    await settleDown()
    const pulls = source.pulls.length
    await clock.advance(100)
    await settleDown()
    return { ...rig, pulls }
  }

  test('does not keep others from being fetched: most of what waits is set aside until it is freed', async () => {
    const rig = await crowd()
    const { source, handler, pulls } = rig
    const verdicts = source.verdicts()
    assert.equal(verdicts.length, many - 10)
    assert.equal(verdicts[0], '11 park')
    assert.equal(source.parks().get(11), 'freed')
    assert.ok(source.pulls.length > pulls, 'the next messages were fetched')
    source.offer(keyedGrant(many + 1, ['slow', 'other']))
    await settleDown()
    assert.deepEqual(source.lastVerdicts(), [`${many + 1} park`])
    assert.deepEqual(handler.started, [0, many + 2])
    await finish(rig)
  })

  test('is slow when it gets on, but has more than ten seconds of work waiting', async () => {
    const rig = await startHeld({ concurrency: 2 })
    const { source, handler, clock } = rig
    source.offer(slow(0, many + 100))
    await settleDown()
    for (const offset of offsets(0, 12)) {
      await clock.advance(10)
      handler.of(offset).resolve()
      await settleDown()
    }
    assert.ok(source.parks().size > many / 2 - 200)
    source.offer(keyedGrant(many + 100, ['other']))
    await settleDown()
    assert.ok(handler.started.includes(many + 100))
    await finish(rig)
  })

  test('goes on with what was set aside when the last of the others was given to the store', async () => {
    const rig = await crowd()
    const { source, handler } = rig
    for (const offset of offsets(0, 10)) {
      handler.of(offset).resolve()
      await settleDown()
    }
    assert.deepEqual(handler.started, offsets(0, 10))
    const [settlement] = source.settlements.at(-1)!
    assert.deepEqual(source.lastVerdicts(), ['10 park'])
    assert.deepEqual(settlement?.freed, ['slow'])
    source.offer(keyedGrant(10, ['slow'], { lease: 50_000, setAside: true }))
    await settleDown()
    assert.deepEqual(handler.started, offsets(0, 11))
    await finish(rig)
  })

  test('is freed too when all that was left of it is set aside', async () => {
    const rig = await crowd()
    const { source, handler } = rig
    handler.of(0).reject(new Error('no'))
    await settleDown()
    const [settlement] = source.settlements.at(-1)!
    assert.equal(settlement?.exceptions.length, 11)
    assert.deepEqual(settlement?.freed, ['slow'])
    await finish(rig)
  })

  test('is freed when all that was left of it is cancelled, though nothing else is settled then', async () => {
    const rig = await crowd()
    const { source } = rig
    for (const offset of offsets(1, 11)) source.cancel(0, offset)
    source.cancel(0, 0)
    await settleDown()
    const freeing = source.settlements.flat().filter(({ freed }) => freed?.includes('slow'))
    assert.ok(freeing.length > 0)
    source.offer(keyedGrant(11, ['slow'], { lease: 50_000, setAside: true }))
    await settleDown()
    assert.deepEqual(rig.handler.started, [0, 11])
    await finish(rig)
  })

  test('keeps everything while all handlers are busy, or while its messages end', async () => {
    for (const busy of [true, false]) {
      const rig = await startHeld({ concurrency: 2 })
      const { source, handler, clock } = rig
      source.offer(keyedGrant(many + 1, busy ? ['other'] : [undefined]), slow(0, many + 1))
      await settleDown()
      if (!busy) handler.of(many + 1).resolve()
      for (const offset of offsets(0, 5)) {
        await clock.advance(60)
        if (!busy) handler.of(offset).resolve()
        await settleDown()
      }
      assert.deepEqual(source.verdicts(), [])
      await finish(rig)
    }
  })
})

test('keys whose handlers are slow do not keep others from free ones, though most handlers have one', async () => {
  const clock = new VirtualClock(START_MS)
  const rig = await startRig({ handle: () => pause(clock, 50) }, { ...ordered, concurrency: 10 }, clock)
  const { source, consumer } = rig
  const names = Array.from({ length: 11_000 }, (_, number) => `key ${number % 6}`)
  source.offer(keyedGrant(0, names))
  await settleDown()
  const pulls = source.pulls.length
  for (let step = 0; step < 30; step++) {
    await clock.advance(10)
    await settleDown()
  }
  assert.ok(source.parks().size > 4_000, 'most of what waits was set aside')
  assert.ok(source.pulls.length > pulls, 'the next messages were fetched')
  const closed = consumer.close()
  await clock.advance(50)
  await closed
})

for (const [keys, concurrency] of [
  [1_000, 1_000],
  [100, 100],
  [100, 10],
] as const) {
  test(`${keys} keys keep what waits while ${concurrency} handlers wait for the store`, async () => {
    const rig = await startRig({ handle: async () => {} }, { ...ordered, concurrency })
    const { source, clock, consumer } = rig
    const names = Array.from({ length: 11_000 }, (_, number) => `key ${number % keys}`)
    for (const _ of offsets(0, 5)) source.settleAnswers.push(async () => clock.advance(100).then(() => []))
    source.offer(keyedGrant(0, names))
    await settleDown()
    await clock.advance(100)
    await settleDown()
    assert.deepEqual(source.verdicts(), [])
    assert.ok(source.acked().length > keys)
    await consumer.close()
  })
}

test('messages in lanes are fetched ahead in growing numbers until one is found that can start', async () => {
  const rig = await startHeld({ concurrency: 2 })
  const { source } = rig
  for (let from = 0; from < 64; ) {
    const { messagesMax } = source.pulls.at(-1)!
    source.offer(
      keyedGrant(
        from,
        Array.from({ length: messagesMax }, () => 'slow'),
      ),
    )
    from += messagesMax
    await settleDown()
  }
  assert.ok(source.pulls.at(-1)!.messagesMax >= 32)
  source.offer(keyedGrant(1_000, ['a', 'b']))
  await settleDown()
  const pulls = source.pulls.length
  await settleDown()
  assert.equal(source.pulls.length, pulls, 'all handlers are busy, and there is enough')
  await finish(rig)
})
