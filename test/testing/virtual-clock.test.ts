import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { connectTest, VirtualClock } from '../../src/testing/index.ts'

describe('VirtualClock', () => {
  test('fires timers in the order of their times, each at its own time', async () => {
    const clock = new VirtualClock(1_000)
    const fired: [string, number][] = []
    const note = (name: string) => () => fired.push([name, clock.now()])
    clock.setTimer(30, note('third'))
    clock.setTimer(10, note('first'))
    clock.setTimer(10, note('second'))
    clock.setTimer(50, note('later'))
    await clock.advance(40)
    assert.deepEqual(fired, [
      ['first', 1_010],
      ['second', 1_010],
      ['third', 1_030],
    ])
    assert.equal(clock.now(), 1_040)
  })

  test('fires what waiting code sets within the span', async () => {
    const clock = new VirtualClock()
    const startMs = clock.now()
    const pause = (delayMs: number) => new Promise<void>((resolve) => clock.setTimer(delayMs, resolve))
    const moments: number[] = []
    const work = async () => {
      for (let step = 0; step < 3; step++) {
        await pause(100)
        moments.push(clock.now() - startMs)
      }
    }
    const working = work()
    await clock.advance(300)
    await working
    assert.deepEqual(moments, [100, 200, 300])
  })

  test('a cancelled timer does not fire', async () => {
    const clock = new VirtualClock()
    let fired = false
    const timer = clock.setTimer(10, () => {
      fired = true
    })
    timer.cancel()
    await clock.advance(20)
    assert.equal(fired, false)
  })
})

test('connectTest gives a store of its own, on the clock that it returns', async () => {
  const [one, other] = [await connectTest(), await connectTest()]
  assert.deepEqual(await one.post.admin.topics(), [])
  assert.notEqual(one.clock, other.clock)
  await one.post.close()
  await other.post.close()
})
