/** A damaged batch costs itself alone, and is reported. */
import assert from 'node:assert/strict'
import { assertCode } from './assertions.ts'
import { dataOf, SUBSCRIPTION, TOPIC } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'
import type { World } from './world.ts'

export const damage: Guarantee = (test, harness) => {
  const skip = harness.corrupt ? undefined : 'the harness has no way to damage a store'

  test(
    'every other message is delivered',
    async (world) => {
      const source = await (await damagedProcess(world, harness.corrupt!)).source()
      assert.deepEqual(dataOf(await source.drain()), ['c', 'd'])
    },
    skip,
  )

  test(
    'the damaged ones become dead letters without content, and the consumer is told',
    async (world) => {
      const process = await damagedProcess(world, harness.corrupt!)
      const source = await process.source()
      await source.drain()
      await world.eventually(() => assert.ok(source.damage.length > 0, 'no report'))
      assertCode(source.damage[0], 'POSTHORN_BATCH_CORRUPT')
      const letters = await process.admin.deadLetters({ topic: TOPIC, subscription: SUBSCRIPTION }, { limit: 10 })
      assert.deepEqual(
        letters.map(({ offset, reason, event }) => [offset, reason, event]),
        [
          [0, 'damaged', undefined],
          [1, 'damaged', undefined],
        ],
      )
    },
    skip,
  )

  test(
    'the check of integrity names the damage',
    async (world) => {
      const process = await damagedProcess(world, harness.corrupt!)
      const problems = await process.admin.checkIntegrity()
      assert.ok(
        problems.some((problem) => problem.includes(TOPIC)),
        String(problems),
      )
    },
    skip,
  )
}

/** A process on a store whose first batch, of two messages, is damaged; the second batch is sound. */
async function damagedProcess(
  world: World,
  corrupt: (store: string, topic: string) => Promise<void>,
): Promise<TestProcess> {
  const writer = await world.process()
  await writer.topic()
  await writer.subscription()
  await writer.publish(['a', 'b'])
  await writer.publish(['c', 'd'])
  await writer.close()
  await corrupt(world.store, TOPIC)
  return world.process()
}
